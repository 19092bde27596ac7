/** Where something begins that may hold a `?1` that is none, or a placeholder. Words are taken whole: `a$b$` quotes nothing. */
const TOKEN = /\?\d+|\$\d+|['"$]|--|\/\*|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*'?|\d\w*/g;
const DOLLAR_TAG = /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y;
const END_OF_LINE = /[\r\n]/g;
const COMMENT_EDGE = /\/\*|\*\//g;
const CACHE_SIZE = 1_000;
/** Longer texts are generated ones that hardly come again. */
const CACHED_LENGTH = 10_000;

/**
 * Turns `?1` into `$1`, outside of literals, quoted names, comments and dollar quotes. The operators `?`, `?|` and `?&`
 * stay: no digit follows them.
 */
export function rewritePlaceholders(sql: string): string {
  if (!/\?\d/.test(sql)) return sql;
  const token = new RegExp(TOKEN);
  let rewritten = "";
  let copied = 0;
  let wordEnd = -1;
  for (let match = token.exec(sql); match !== null; match = token.exec(sql)) {
    const [text] = match;
    if (text[0] === "?") {
      // `LIMIT?1` would become one word.
      rewritten += sql.slice(copied, match.index) + (wordEnd === match.index ? " $" : "$") + text.slice(1);
      copied = token.lastIndex;
    } else {
      token.lastIndex = endOf(sql, text, match.index);
      wordEnd = token.lastIndex;
    }
  }
  return rewritten + sql.slice(copied);
}

/** Rewritten statements by their text, oldest out first. */
export class PlaceholderCache {
  readonly #known = new Map<string, string>();

  rewrite(sql: string): string {
    const known = this.#known.get(sql);
    if (known !== undefined) return known;
    const rewritten = rewritePlaceholders(sql);
    if (sql.length > CACHED_LENGTH) return rewritten;
    if (this.#known.size >= CACHE_SIZE) this.#known.delete(this.#known.keys().next().value as string);
    this.#known.set(sql, rewritten);
    return rewritten;
  }
}

/** Where what `token` opens at `start` is over; what is never closed ends with the text. */
function endOf(sql: string, token: string, start: number): number {
  const next = start + token.length;
  if (token === "--") return endOfLine(sql, next);
  if (token === "/*") return endOfComment(sql, next);
  if (token === "$") return endOfDollarQuote(sql, start);
  if (token === '"') return endOfQuote(sql, '"', next);
  if (token === "E'" || token === "e'") return endOfEscapeString(sql, next);
  return token.endsWith("'") ? endOfQuote(sql, "'", next) : next;
}

function endOfLine(sql: string, from: number): number {
  const end = new RegExp(END_OF_LINE);
  end.lastIndex = from;
  return end.exec(sql)?.index ?? sql.length;
}

function endOfComment(sql: string, from: number): number {
  const edge = new RegExp(COMMENT_EDGE);
  edge.lastIndex = from;
  let depth = 1;
  for (let match = edge.exec(sql); match !== null; match = edge.exec(sql)) {
    depth += match[0] === "/*" ? 1 : -1;
    if (depth === 0) return edge.lastIndex;
  }
  return sql.length;
}

function endOfDollarQuote(sql: string, start: number): number {
  const opening = new RegExp(DOLLAR_TAG);
  opening.lastIndex = start;
  const tag = opening.exec(sql)?.[0];
  if (tag === undefined) return start + 1;
  const end = sql.indexOf(tag, start + tag.length);
  return end < 0 ? sql.length : end + tag.length;
}

/** A doubled quote stands for itself. */
function endOfQuote(sql: string, quote: string, from: number): number {
  for (let at = sql.indexOf(quote, from); at >= 0; at = sql.indexOf(quote, at + 2)) {
    if (sql[at + 1] !== quote) return at + 1;
  }
  return sql.length;
}

function endOfEscapeString(sql: string, from: number): number {
  for (let at = from; at < sql.length; at++) {
    if (sql[at] === "\\") at++;
    else if (sql[at] === "'" && sql[at + 1] === "'") at++;
    else if (sql[at] === "'") return at + 1;
  }
  return sql.length;
}
