// Calls through typed clients. Compiled only; a line that must not compile says so.
import { Action, Event, Method, service, Service, Started, type CallOptions, type Context, type ServiceSelf } from "@chimpbase/mesh";

class CreateUser { email!: string; }

@Service("users")
class UsersService {
  protected readonly hidden = 1;
  @Method() normalize(email: string) { return email.toLowerCase(); }
  @Action() async create(_ctx: Context, args: CreateUser, _self: ServiceSelf) { return { email: this.normalize(args.email) }; }
  @Action() count(_ctx: Context) { return 1; }
  @Action() ping() { return "pong"; }
  @Action() list(_ctx: Context, _args?: { page: number }): string[] { return []; }
  @Action() maybe(_ctx: Context, _args: { page: number } | undefined): void {}
  @Event("x") onX(_ctx: Context, _payload: { id: string }) {}
  @Started() up(_ctx: Context) {}
}

abstract class UsersContract { abstract create(ctx: Context, args: CreateUser): Promise<{ email: string }>; }

export async function classes(ctx: Context): Promise<void> {
  const users = ctx.mesh.service(UsersService);
  const created: { email: string } = await users.create({ email: "a" });
  const counted: number = await users.count();
  const pong: string = await users.ping();
  const listed: string[] = await users.list();
  await users.list({ page: 1 }, { timeoutMs: 5 });
  await users.maybe();
  await users.create({ email: "a" }, { retry: { attempts: 2 }, fallback: () => ({ email: "b" }) });
  await ctx.mesh.service(UsersContract).create({ email: "a" });
  // @ts-expect-error no such action
  await users.creat({ email: "a" });
  // @ts-expect-error an argument of another shape
  await users.create({ mail: "a" });
  // @ts-expect-error no argument where one is needed
  await users.create();
  // @ts-expect-error an argument of another type
  await users.list({ page: "1" });
  // @ts-expect-error a result of another type
  const wrong: number = await users.create({ email: "a" });
  // @ts-expect-error no such option
  await users.create({ email: "a" }, { timeoutMS: 1 });
  // @ts-expect-error options are the second argument
  await users.count({ timeoutMs: 1 });
  // @ts-expect-error the context is not passed by callers
  await users.create(ctx, { email: "a" });
  // @ts-expect-error a fallback of another type
  await users.create({ email: "a" }, { fallback: () => 1 });
  // @ts-expect-error methods without a context are no actions
  await users.normalize("A");
  // @ts-expect-error members that are not public are no actions
  void users.hidden;
  void [created, counted, pong, listed, wrong];
}

export async function names(ctx: Context): Promise<void> {
  const users = ctx.mesh.service<UsersService>("v1.users");
  const created: { email: string } = await users.create({ email: "a" });
  // @ts-expect-error no such action
  await users.remove({ id: 1 });
  // @ts-expect-error an argument of another shape
  await users.create({ id: 1 });
  // @ts-expect-error without a type nothing is known
  await ctx.mesh.service("v1.users").create({ email: "a" });
  const options: CallOptions<number> = { fallback: (error) => error.message.length };
  const called: number = await ctx.mesh.call<number>("v1.users.count", undefined, options);
  void [created, called];
}

const orders = service({
  name: "orders", version: 2, settings: { max: 50, tags: ["a"] },
  methods: { twice(n: number) { return n * 2; }, four(n: number): number { return this.twice(this.twice(n)); } },
  actions: {
    place: async (ctx, args: { qty: number }, self) => {
      const max: number = self.settings.max;
      await ctx.db.query("SELECT 1");
      return { qty: Math.min(self.methods.four(args.qty), max), tag: self.settings.tags[0] };
    },
    find: { timeoutMs: 5, handler: async (_ctx, args: { id: string }, self) => self.methods.twice(args.id.length) },
    ping: () => "pong",
    "a.b": (ctx) => ctx.level,
    removed: false,
    // @ts-expect-error no such method
    lost: (_ctx, _args: undefined, self) => self.methods.thrice(1),
    // @ts-expect-error no such setting
    missing: (_ctx, _args: undefined, self) => self.settings.min,
  },
  events: {
    "user.deleted": async (ctx, payload: { id: string }, self) => { ctx.log.info(payload.id); self.methods.twice(self.settings.max); },
    "order.paid": { balanced: true, maxAttempts: 3, handler: async (_ctx, _payload: { id: string }) => undefined },
  },
  started: async (ctx, self) => { ctx.log.info(self.name, { max: self.settings.max }); },
  stopped: [() => undefined],
});

export async function definitions(ctx: Context): Promise<void> {
  const client = ctx.mesh.service(orders);
  const placed: { qty: number; tag: string | undefined } = await client.place({ qty: 1 });
  const found: number = await client.find({ id: "a" }, { timeoutMs: 1 });
  const pong: string = await client.ping();
  const level: number = await client["a.b"]();
  // @ts-expect-error no such action
  await client.cancel();
  // @ts-expect-error an argument of another shape
  await client.place({ quantity: 1 });
  // @ts-expect-error a result of another type
  const wrong: string = await client.find({ id: "a" });
  // @ts-expect-error a removed action
  await client.removed();
  void [placed, found, pong, level, wrong];
}

// @ts-expect-error a service needs a name
service({ actions: {} });
// @ts-expect-error no such key
service({ name: "a", action: {} });
// @ts-expect-error no such option
service({ name: "a", actions: { b: { timeoutMS: 1, handler: () => 1 } } });
// @ts-expect-error not a handler
service({ name: "a", actions: { b: 1 } });
// @ts-expect-error an option of another type
service({ name: "a", events: { b: { balanced: "yes", handler: () => 1 } } });
