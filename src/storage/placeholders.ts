export function rewritePlaceholders(_sql: string): string {
  throw new Error("stub");
}
