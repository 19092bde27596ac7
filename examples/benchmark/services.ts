import { Action, Event, Service, type Context } from "@chimpbase/mesh";

@Service("adder")
export class AdderService {
  @Action()
  add(_ctx: Context, { a, b }: { a: number; b: number }): { sum: number } {
    return { sum: a + b };
  }
}

@Service("sink")
export class SinkService {
  onDelivery: (payload: unknown) => void = () => undefined;

  @Event("bench.balanced", { balanced: true })
  balanced(_ctx: Context, payload: unknown): void {
    this.onDelivery(payload);
  }

  @Event("bench.broadcast")
  broadcast(_ctx: Context, payload: unknown): void {
    this.onDelivery(payload);
  }
}
