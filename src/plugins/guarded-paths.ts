import { MeshConfigurationError } from "../errors.js";

/** Each round undoes one layer of percent-encoding; a path with more of them is taken for an attack. */
const MOST_DECODINGS = 4;

export interface PathRules {
  readonly protectedPaths: "all" | readonly (string | RegExp)[];
  readonly excludePaths: readonly (string | RegExp)[];
}

/**
 * Which paths are guarded. A path is looked at in every form that some router might read it in (decoded, with dot
 * segments resolved, doubled and trailing slashes and case dropped): it is guarded if any form is protected, and let through only if all
 * forms are excluded.
 */
export class GuardedPaths {
  readonly #protected: "all" | readonly ((path: string) => boolean)[];
  readonly #excluded: readonly ((path: string) => boolean)[];

  /** Throws `MeshConfigurationError` for a rule that is neither a path nor a regular expression. */
  constructor({ protectedPaths, excludePaths }: PathRules) {
    this.#protected = protectedPaths === "all" ? "all" : checkList("protectedPaths", protectedPaths).map((rule) => matcher("protectedPaths", rule, true));
    this.#excluded = checkList("excludePaths", excludePaths).map((rule) => matcher("excludePaths", rule, false));
  }

  /** `pathname` as the URL has it, still encoded. */
  guards(pathname: string): boolean {
    const forms = formsOf(pathname);
    if (forms === null) return true;
    const rules = this.#protected;
    const isProtected = rules === "all" || forms.some((form) => rules.some((matches) => matches(form) || matches(form.toLowerCase())));
    return isProtected && !forms.every((form) => this.#excluded.some((matches) => matches(form)));
  }
}

function checkList(option: string, rules: unknown): readonly (string | RegExp)[] {
  if (Array.isArray(rules)) return rules as (string | RegExp)[];
  throw new MeshConfigurationError(`chimpbaseAuth: option "${option}" must be a list of paths and regular expressions`);
}

/** `/a` protects what is beneath it, and whatever its case. As an exclusion it is just that path; `/a/*` is what is beneath. */
function matcher(option: string, rule: string | RegExp, protects: boolean): (path: string) => boolean {
  if (rule instanceof RegExp) {
    // Without the flags that make `test` remember where it was.
    const stateless = new RegExp(rule.source, rule.flags.replace(/[gy]/g, ""));
    return (path) => stateless.test(path);
  }
  if (typeof rule !== "string" || !rule.startsWith("/")) {
    throw new MeshConfigurationError(`chimpbaseAuth: option "${option}" holds ${JSON.stringify(rule)}; a path must begin with "/"`);
  }
  if (protects) return beneath(trimSlash(rule.replace(/\/\*$/, "")).toLowerCase());
  return rule.endsWith("/*") ? (path) => path.startsWith(rule.slice(0, -1)) : (path) => path === rule;
}

function beneath(base: string): (path: string) => boolean {
  const prefix = base === "/" ? "/" : `${base}/`;
  return (path) => path === base || path.startsWith(prefix);
}

/**
 * The path as routers may read it: decoded never, once, or until nothing is left to decode, each with and without dot
 * segments resolved. Null for what cannot be decoded, or was encoded too often.
 */
function formsOf(pathname: string): string[] | null {
  const forms = new Set<string>();
  let path = pathname;
  for (let round = 0; round < MOST_DECODINGS; round++) {
    forms.add(path).add(joinSegments(path, false)).add(joinSegments(path, true));
    const decoded = tryDecode(path);
    if (decoded === null) return null;
    if (decoded === path) return [...forms];
    path = decoded;
  }
  return null;
}

function tryDecode(path: string): string | null {
  try {
    return decodeURIComponent(path);
  } catch {
    return null;
  }
}

/** Without doubled and trailing slashes, and backslashes as slashes, which they are in URLs of http. */
function joinSegments(path: string, resolveDots: boolean): string {
  const segments: string[] = [];
  for (const segment of path.replaceAll("\\", "/").split("/")) {
    if (resolveDots && segment === "..") segments.pop();
    else if (segment !== "" && !(resolveDots && segment === ".")) segments.push(segment);
  }
  return `/${segments.join("/")}`;
}

function trimSlash(path: string): string {
  return path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
}
