import { Event, Service, type Context } from "@chimpbase/mesh";
import { Counted } from "./counted.js";

/** Runs on every node of the shop: each hears of each order. */
@Service("news")
export class NewsService extends Counted(Object) {
  @Event("order.*")
  onOrder(_ctx: Context, _order: unknown): void {
    this.count("heard");
  }
}
