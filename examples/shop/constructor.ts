/** What a mixin function can extend. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- TypeScript asks for exactly this shape
export type Constructor<T = object> = abstract new (...args: any[]) => T;
