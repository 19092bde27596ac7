import { IsInt, IsUUID, Min } from "class-validator";
import { Action, Event, Service, type Context } from "@chimpbase/mesh";
import { Counted } from "./counted.js";
import { Tables } from "./tables.js";
import type { PlacedOrder } from "./orders.js";

export class Charge {
  @IsUUID() orderId!: string;
  @IsInt() @Min(1) cents!: number;
}

@Service("billing")
export class BillingService extends Counted(Tables) {
  protected readonly ddl = [
    "CREATE TABLE IF NOT EXISTS shop_invoices (id BIGSERIAL PRIMARY KEY, order_id UUID NOT NULL, cents INTEGER NOT NULL)",
  ];

  /** The payment id follows from the order, so that charging twice is charging once. */
  @Action({ params: Charge })
  charge(_ctx: Context, { orderId }: Charge): { paymentId: string } {
    this.count("charge");
    return { paymentId: `pay_${orderId.slice(0, 8)}` };
  }

  /** Balanced: one node of the group, and one invoice, however often the job has to run. */
  @Event("order.placed", { balanced: true })
  async writeInvoice(ctx: Context, order: PlacedOrder): Promise<void> {
    this.count("writeInvoice");
    await ctx.db.query("INSERT INTO shop_invoices (order_id, cents) VALUES (?1, ?2)", [order.id, order.totalCents]);
  }
}
