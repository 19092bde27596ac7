import { definitionError, type Plan } from "./plan.js";
import { show } from "./names.js";

/** Something that can be described: its plan, what it is known by, and the instance where one was given. */
export interface Source {
  readonly plan: Plan;
  /** Class, instance or definition: the same identity reached twice counts once. */
  readonly identity: object;
  readonly instance: object | null;
}

/**
 * The service and its mixins in order of precedence, lowest first: mixins before what lists them, in listing order,
 * each once, where it is reached first. `read` turns a listed value into a source.
 */
export function linearize(root: Source, read: (value: object, subject: string) => Source): Source[] {
  const order = new Map<object, Source>();
  visit(root, [], order, read);
  const reached = [...order.values()];
  return reached.filter((source) => !reached.some((other) => covers(other, source)));
}

function visit(source: Source, path: readonly Source[], order: Map<object, Source>, read: (value: object, subject: string) => Source): void {
  if (path.some((above) => above.identity === source.identity)) throw cycleError([...path, source]);
  if (order.has(source.identity)) return;
  source.plan.mixins.forEach((value, index) => {
    const subject = `${source.plan.subject}, mixins[${index}]`;
    if (value === undefined) throw definitionError(subject, "is undefined: most often a circular import");
    if ((typeof value !== "object" && typeof value !== "function") || value === null) throw definitionError(subject, `must be a class or a descriptor, got ${show(value)}`);
    visit(read(value, subject), [...path, source], order, read);
  });
  order.set(source.identity, source);
}

function cycleError(path: readonly Source[]): Error {
  const first = path.findIndex((source) => source.identity === path.at(-1)?.identity);
  const chain = path.slice(first).map((source) => source.plan.subject).join(" → ");
  return definitionError(path[0]!.plan.subject, `mixins form a cycle: ${chain}`);
}

/** A listed class that another one extends, or that is there as an instance, is part of that one already. */
function covers(other: Source, source: Source): boolean {
  const base = source.plan.type;
  if (other === source || source.instance !== null || base === null || other.plan.type === null) return false;
  return other.plan.type === base || (other.plan.type.prototype as unknown) instanceof (base as unknown as new () => object);
}
