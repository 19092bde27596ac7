import { Type } from "class-transformer";
import { ArrayNotEmpty, IsEmail, IsInt, IsString, IsUUID, Max, Min, ValidateNested } from "class-validator";
import { Action, Method, Service, type Context } from "@chimpbase/mesh";
import { BillingService } from "./billing.js";
import { Counted } from "./counted.js";
import { Tables } from "./tables.js";

export class OrderLine {
  @IsString() sku!: string;
  @IsInt() @Min(1) @Max(100) quantity!: number;
  @IsInt() @Min(1) priceCents!: number;
}

export class PlaceOrder {
  /** Chosen by the client, so that a repeated request places one order. */
  @IsUUID() id!: string;
  @IsEmail() email!: string;
  @ArrayNotEmpty() @ValidateNested({ each: true }) @Type(() => OrderLine) lines!: OrderLine[];
}

export interface PlacedOrder {
  id: string;
  totalCents: number;
  paymentId: string;
}

@Service("orders")
export class OrdersService extends Counted(Tables) {
  protected readonly ddl = [
    "CREATE TABLE IF NOT EXISTS shop_orders (id UUID PRIMARY KEY, email TEXT NOT NULL, total_cents INTEGER NOT NULL, payment_id TEXT NOT NULL)",
  ];

  @Method()
  totalOf(lines: readonly OrderLine[]): number {
    return lines.reduce((sum, line) => sum + line.quantity * line.priceCents, 0);
  }

  /** The order and the news of it commit together: no order without its event, no event without its order. */
  @Action({ params: PlaceOrder })
  async place(ctx: Context, order: PlaceOrder): Promise<PlacedOrder> {
    this.count("place");
    const totalCents = this.totalOf(order.lines);
    const { paymentId } = await ctx.mesh.service(BillingService).charge({ orderId: order.id, cents: totalCents }, { retry: { attempts: 2 } });
    const placed = { id: order.id, totalCents, paymentId };
    await ctx.transaction(async (tx) => {
      const rows = await tx.db.query(
        "INSERT INTO shop_orders VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING RETURNING id",
        [order.id, order.email, totalCents, paymentId],
      );
      if (rows.length === 1) await tx.mesh.emit("order.placed", placed);
    });
    return placed;
  }
}
