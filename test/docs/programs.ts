/** One program of a page of documentation, with the output that the page promises. */
export interface DocumentedProgram {
  /** 1-based line of its first block. */
  readonly line: number;
  readonly source: string;
  readonly output: readonly string[];
}

interface Block {
  readonly language: string;
  readonly line: number;
  readonly body: string;
  readonly startsProgram: boolean;
}

/**
 * The `ts` blocks of a page, in order, are one program, unless `<!-- new program -->` stands before a block. The lines of
 * a `text` block that follows directly are what the program so far must have printed.
 */
export function programsOf(markdown: string): DocumentedProgram[] {
  const programs: { line: number; source: string[]; output: string[] }[] = [];
  let followsCode = false;
  for (const block of blocksOf(markdown)) {
    if (block.language === "ts") {
      if (programs.length === 0 || block.startsProgram) programs.push({ line: block.line, source: [], output: [] });
      programs.at(-1)!.source.push(block.body);
    } else if (block.language === "text" && followsCode) {
      programs.at(-1)!.output.push(...block.body.split("\n").filter((line) => line !== ""));
    }
    followsCode = block.language === "ts";
  }
  return programs.map(({ line, source, output }) => ({ line, source: source.join("\n"), output }));
}

function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  let open: { language: string; line: number; body: string[]; startsProgram: boolean } | undefined;
  let marked = false;
  for (const [index, line] of markdown.split("\n").entries()) {
    const fence = /^```(\w*)/.exec(line);
    if (open === undefined && fence !== null) {
      open = { language: fence[1]!, line: index + 1, body: [], startsProgram: marked };
      marked = false;
    } else if (open !== undefined && line === "```") {
      blocks.push({ ...open, body: open.body.join("\n") });
      open = undefined;
    } else if (open !== undefined) {
      open.body.push(line);
    } else if (line.trim() === "<!-- new program -->") {
      marked = true;
    }
  }
  return blocks;
}
