import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseCalleeLine, parseCallerLine } from "#mesh/mesh/wire-frames.js";
import { LineReader } from "#mesh/mesh/wire-lines.js";
import { LineWriter } from "#mesh/mesh/wire-writer.js";

interface Read {
  readonly lines: string[];
  readonly tooLong: string[];
  readonly reader: LineReader;
}

function readerOf(maxBytes: number): Read {
  const lines: string[] = [];
  const tooLong: string[] = [];
  return { lines, tooLong, reader: new LineReader({ maxBytes, onLine: (line) => lines.push(line), onTooLong: (head) => tooLong.push(head) }) };
}

describe("lines of a wire", () => {
  const line = fc.string({ unit: "binary" }).map((text) => text.replaceAll("\n", ""));

  test("are read as they were written, however they are cut into chunks", () => {
    fc.assert(fc.property(fc.array(line), fc.array(fc.integer({ min: 1, max: 9 })), (written, sizes) => {
      const { lines, reader } = readerOf(1_000_000);
      const bytes = Buffer.from(written.map((text) => `${text}\n`).join(""));
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const size = sizes[i] ?? bytes.length;
        reader.push(bytes.subarray(at, at + size));
        at += size;
      }
      assert.deepEqual(lines, written.map((text) => Buffer.from(text).toString("utf8")));
      assert.equal(reader.openLine, 0);
    }));
  });

  test("that are longer than the limit end the reading, with what stands at their beginning", () => {
    const { lines, tooLong, reader } = readerOf(10);
    reader.push(Buffer.from("short\n12345"));
    assert.notEqual(reader.openLine, 0);
    reader.push(Buffer.from("678901\nnext\n"));
    assert.deepEqual([lines, tooLong], [["short"], ["12345678901\nnext\n"]]);
    reader.push(Buffer.from("more\n"));
    assert.deepEqual(lines, ["short"]);
  });

  test("are numbered while they are not whole, so that their time can be limited", () => {
    const { reader } = readerOf(100);
    reader.push(Buffer.from("a"));
    const first = reader.openLine;
    reader.push(Buffer.from("b"));
    assert.equal(reader.openLine, first);
    reader.push(Buffer.from("c\nd"));
    assert.ok(reader.openLine > first);
    reader.push(Buffer.from("\n"));
    assert.equal(reader.openLine, 0);
  });

  test("that are none never throw", () => {
    fc.assert(fc.property(fc.oneof(line, fc.stringMatching(/^[RCAGP]?[0-9 ]{0,20}.{0,5}$/)), (text) => {
      for (const parse of [parseCallerLine, parseCalleeLine]) {
        const frame = parse(text);
        if (frame !== null && "id" in frame) assert.ok(Number.isSafeInteger(frame.id) && frame.id >= 0);
      }
    }));
  });
});

test("the first line of an idle writer is written at once, the others of the turn together, and enough of them or of their text at once again", async () => {
  const socket = new PassThrough({ highWaterMark: 1_000_000 });
  const chunks: string[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk.toString()));
  const writer = new LineWriter(socket, () => undefined);
  for (const line of ["a", "b", "c"]) writer.write(line);
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.deepEqual(chunks, ["a", "bc"]);
  await new Promise(setImmediate);
  for (let i = 0; i < 18; i++) writer.write("x");
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.deepEqual(chunks.splice(2).map(({ length }) => length), [1, 16, 1]);
  await new Promise(setImmediate);
  for (let i = 0; i < 6; i++) writer.write("x".repeat(15_000));
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.deepEqual(chunks.slice(2).map(({ length }) => length), [15_000, 45_000, 30_000]);
});
