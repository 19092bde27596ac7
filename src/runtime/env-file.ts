const LINE = /^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*("(?:\\[^]|[^"\\])*"|'[^']*'|[^\r\n]*)/gm;
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };

/**
 * Reads `NAME=value` lines. `export` in front is allowed; `#` begins a comment at the start of a line, and after
 * white space behind an unquoted value. Single quotes keep everything as it is; double quotes know `\n`, `\r`, `\t`,
 * `\"` and `\\`; both may span lines. The last value of a name wins. Nothing is expanded.
 */
export function parseEnvFile(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const [, name, raw] of text.replace(/^\uFEFF/, "").matchAll(LINE)) values.set(name as string, unquote(raw as string));
  return values;
}

function unquote(raw: string): string {
  if (raw.length > 1 && raw.startsWith('"') && raw.endsWith('"')) {
    return raw.slice(1, -1).replace(/\\([^])/g, (_, char: string) => ESCAPES[char] ?? char);
  }
  if (raw.length > 1 && raw.startsWith("'") && raw.endsWith("'")) return raw.slice(1, -1);
  return raw.replace(/(^|[ \t])#.*$/, "").trim();
}
