import { setTimeout as sleep } from "node:timers/promises";
import { IsBoolean, IsInt, IsISO4217CurrencyCode, IsString, MaxLength, Min } from "class-validator";
import { Action, Event, Service, type Context } from "@chimpbase/mesh";
import type { Message } from "../roles.js";

export class AddRequest {
  @IsInt() a!: number;
  @IsInt() @Min(0) b!: number;
  @IsString() @MaxLength(100) label!: string;
  @IsISO4217CurrencyCode() currency!: string;
  @IsBoolean() urgent!: boolean;
}

@Service("adder")
export class AdderService {
  @Action()
  add(_ctx: Context, { a, b }: { a: number; b: number }): { sum: number } {
    return { sum: a + b };
  }

  @Action()
  async addLater(_ctx: Context, { a, b }: { a: number; b: number }): Promise<{ sum: number }> {
    return { sum: a + b };
  }

  @Action({ params: AddRequest })
  addChecked(_ctx: Context, { a, b }: AddRequest): { sum: number } {
    return { sum: a + b };
  }

  @Action()
  addUnchecked(_ctx: Context, { a, b }: { a: number; b: number }): { sum: number } {
    return { sum: a + b };
  }

  @Action()
  echo(_ctx: Context, args: { text: string }): { text: string } {
    return args;
  }

  @Action()
  async slow(_ctx: Context, { ms }: { ms: number }): Promise<{ sum: number }> {
    await sleep(ms);
    return { sum: 42 };
  }
}

/** A mesh needs a service; this one makes nodes that only call or emit. */
@Service("bystander")
export class BystanderService {
  @Action()
  nothing(): null {
    return null;
  }
}

@Service("work")
export class WorkService {
  constructor(private readonly handler: (message: Message) => void) {}

  @Event("bench.work", { balanced: true })
  work(_ctx: Context, message: Message): void {
    this.handler(message);
  }
}

@Service("work")
export class WritingService {
  constructor(private readonly handler: (message: Message) => void) {}

  @Event("bench.work", { balanced: true })
  async work(ctx: Context, message: Message): Promise<void> {
    await ctx.db.query("INSERT INTO effects (i) VALUES (?1)", [message.i]);
    this.handler(message);
  }
}

@Service("news")
export class NewsService {
  constructor(private readonly handler: (message: Message) => void) {}

  @Event("bench.news")
  news(_ctx: Context, message: Message): void {
    this.handler(message);
  }
}
