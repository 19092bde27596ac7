// Uses of the decorators. Compiled in both decorator modes; a line that must not compile says so.
import { z } from "zod";
import { Action, Event, Method, service, Service, Started, Stopped, type Context, type ServiceSelf } from "@chimpbase/mesh";

class CreateUser { email!: string; }
const Page = z.object({ page: z.number().default(1), filter: z.string().optional() });

@Service({ name: "users", version: 1, settings: { max: 1 }, mixins: [class Mixin {}, service({ name: "a" })] })
export class UsersService {
  constructor(readonly repo: object) {}
  @Method() normalize(email: string) { return email.toLowerCase(); }
  @Method("other") private generic<T>(value: T): T { return value; }
  @Action() none() { return this.generic(1); }
  @Action() context(ctx: Context) { return ctx.level; }
  @Action("named") named(_ctx: Context, args: { id: string }, self: ServiceSelf<{ max: number }>) { return self.settings.max + args.id.length; }
  @Action(false) off(_ctx: Context) {}
  @Action({ timeoutMs: 1, retry: { attempts: 1 } }) options(_ctx: Context, _args: string) {}
  @Action({ params: CreateUser }) async params(_ctx: Context, args: CreateUser, _self: ServiceSelf) { return args.email; }
  @Action({ params: CreateUser }) noArgs() {}
  @Action({ params: Page }) schema(_ctx: Context, args: z.infer<typeof Page>) { return args.page; }
  @Action({ params: Page }) narrower(_ctx: Context, args: { page: number }) { return args.page; }
  @Action() inferred<T extends object>(_ctx: Context, args: T): Promise<T> { return Promise.resolve(args); }
  @Event("x") plain(_ctx: Context, _payload: { id: string }) {}
  @Event("order.paid", { balanced: true, group: "g", params: CreateUser }) paid(_ctx: Context, _payload: CreateUser) {}
  @Event({ name: "y", concurrency: 2 }) @Event() many(ctx: Context) { return ctx.event?.attempt; }
  @Started() @Stopped() hook(_ctx: Context, self: ServiceSelf) { return self.name; }
  @Started() bare() {}
}

@Service() export abstract class Abstract { @Action() abstract_(_ctx: Context) {} }
@Service("derived") export class Derived extends UsersService { override options(_ctx: Context, _args: string) {} }

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what TypeScript asks of mixin functions
export const Paged = <B extends abstract new (...args: any[]) => object>(Base: B) => {
  abstract class PagedBase extends Base { @Action() page(_ctx: Context, n: number) { return n; } }
  return PagedBase;
};

export class Mistakes {
  // @ts-expect-error the argument is not what params lets through
  @Action({ params: CreateUser }) otherShape(_ctx: Context, args: { nope: number }) { return args.nope; }
  // @ts-expect-error the argument is not what params lets through
  @Action({ params: Page }) otherType(_ctx: Context, args: string) { return args; }
  // @ts-expect-error the payload is not what params lets through
  @Event("x", { params: CreateUser }) otherPayload(_ctx: Context, args: number) { return args; }
  // @ts-expect-error the first parameter is the context
  @Action() first(args: string) { return args; }
  // @ts-expect-error hooks take a context first
  @Started() hook(args: string) { return args; }
  // @ts-expect-error a field
  @Action() field = 3;
  // @ts-expect-error a field that holds a function
  @Action() arrow = (ctx: Context) => ctx;
  // @ts-expect-error a getter
  @Event("x") get getter() { return 3; }
  // @ts-expect-error a static member
  @Action() static shared(_ctx: Context) {}
  // @ts-expect-error a symbol member
  @Action() [Symbol.iterator](_ctx: Context) {}
  // @ts-expect-error the parentheses are missing
  @Action bare(_ctx: Context) {}
  // @ts-expect-error no such option
  @Action({ timeoutMS: 3 }) typo(_ctx: Context) {}
  // @ts-expect-error no schema
  @Action({ params: 3 }) noSchema(_ctx: Context) {}
  // @ts-expect-error true says nothing
  @Action(true) yes(_ctx: Context) {}
  // @ts-expect-error two names
  @Event("x", { name: "y" }) twoNames(_ctx: Context) {}
  // @ts-expect-error hooks take no arguments
  @Stopped("x") named() {}
  // @ts-expect-error a class decorator on a method
  @Service() member(_ctx: Context) {}
}

// @ts-expect-error a method decorator on a class
@Action() export class OnClass {}
// @ts-expect-error no such option
@Service({ names: "x" }) export class Typo {}
// @ts-expect-error the parentheses are missing
@Service export class Bare {}
