import { randomUUID } from "node:crypto";

export interface Answer {
  readonly status: number;
  readonly body: { id?: string; code?: string; details?: readonly { path: string; message: string }[] };
}

export const sampleOrder = (): object => ({
  id: randomUUID(),
  email: "ada@example.com",
  lines: [{ sku: "tea", quantity: 2, priceCents: 450 }, { sku: "pot", quantity: 1, priceCents: 2_900 }],
});

export const brokenOrder = (): object => ({ id: randomUUID(), email: "nobody", lines: [{ sku: "tea", quantity: 0, priceCents: 450 }] });

export async function postOrder(gateway: string, order: object): Promise<Answer> {
  const response = await fetch(`${gateway}/orders`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(order),
  });
  return { status: response.status, body: (await response.json()) as Answer["body"] };
}

/** Places `count` orders, `concurrency` at a time; `onAnswer` sees each answer as it comes. */
export async function placeOrders(gateway: string, count: number, concurrency: number, onAnswer: (answer: Answer, done: number) => void): Promise<void> {
  let sent = 0;
  let done = 0;
  const customer = async (): Promise<void> => {
    while (sent < count) {
      sent++;
      const answer = await postOrder(gateway, sampleOrder());
      onAnswer(answer, ++done);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, customer));
}
