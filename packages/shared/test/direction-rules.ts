import { dirname, join, normalize } from "node:path/posix";

/** What stands under `packages/`: source text by path, `p2p-mirror/src/http/blobs.ts`. */
export type Sources = ReadonlyMap<string, string>;

/** The ports of the mirror: interfaces that say what is needed, without anything that does it; and what they speak of. */
export const PORTS: readonly string[] = [
  "p2p-mirror/src/store/content-store.ts",
  "p2p-mirror/src/store/blob-cache.ts",
  "p2p-mirror/src/store/catalog.ts",
  "p2p-mirror/src/routing/router.ts",
  "p2p-mirror/src/upstream/upstream.ts",
  "p2p-mirror/src/transfer/peer-client.ts",
  "p2p-mirror/src/transfer/content.ts",
  "p2p-mirror/src/transfer/access.ts",
  "p2p-mirror/src/transfer/records.ts",
  "p2p-mirror/src/transfer/source.ts",
  "p2p-mirror/src/transfer/pieces.ts",
  "p2p-mirror/src/transfer/notifier.ts",
  "p2p-mirror/src/swarm/swarm.ts",
  "p2p-mirror/src/swarm/times.ts",
];

/**
 * Who may know whom inside the mirror, beside itself. `trust` is below `routing`, `peer` and `swarm`: they need the identity and
 * the keys, and it needs neither.
 */
const MIRROR_AREAS: Readonly<Record<string, readonly string[]>> = {
  ports: ["ports"],
  store: ["ports"],
  routing: ["ports", "trust"],
  upstream: ["ports"],
  trust: ["ports"],
  peer: ["ports", "trust"],
  transfer: ["ports"],
  swarm: ["ports", "trust"],
  http: ["ports"],
  config: [],
  hosts: [],
  kubernetes: ["status"],
  status: [],
  doctor: ["config", "hosts", "status"],
  cli: ["config", "doctor", "hosts", "status"],
  daemon: [
    "ports",
    "store",
    "routing",
    "upstream",
    "trust",
    "peer",
    "transfer",
    "swarm",
    "http",
    "config",
    "doctor",
    "hosts",
    "kubernetes",
    "status",
  ],
  main: ["cli", "config", "daemon"],
  index: [],
};

/** Packages that belong to one part, so that it can be replaced alone. */
const PACKAGE_HOMES: readonly { readonly matches: RegExp; readonly areas: readonly string[] }[] = [
  {
    matches:
      /^(?:libp2p|@libp2p\/|@chainsafe\/|@multiformats\/|multiformats|it-|interface-datastore|datastore-)/,
    areas: ["routing", "trust", "swarm"],
  },
  { matches: /^(?:fastify|@fastify\/)/, areas: ["http"] },
  { matches: /^undici/, areas: ["upstream", "peer"] },
  { matches: /^@peculiar\//, areas: ["trust"] },
  { matches: /^(?:commander|cli-table3|cli-progress)$/, areas: ["cli"] },
  { matches: /^node:sqlite$/, areas: ["store"] },
];

/** Packages of the repository, and what they may import of each other. */
const PACKAGE_DIRECTION: Readonly<Record<string, readonly string[]>> = {
  shared: [],
  "p2p-mirror": ["@p2p-mirror/shared"],
  prefetcher: ["@p2p-mirror/shared"],
};

const FORBIDDEN: Readonly<Record<string, RegExp>> = {
  shared: /^(?:libp2p|@libp2p\/|@chainsafe\/|fastify|@fastify\/|undici|commander|@kubernetes\/)/,
  "p2p-mirror": /^@kubernetes\//,
  prefetcher: /^(?:libp2p|@libp2p\/)/,
};

const TOKENS = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/g;

/** Source without its comments; texts stay, so that specifiers can be read and `//` in a URL is no comment. */
export const withoutComments = (source: string): string =>
  source.replaceAll(TOKENS, (token) => (token.startsWith("/") ? " " : token));

/** Specifiers of static, re-exporting, side-effect, dynamic and CommonJS imports. */
export function importsOf(source: string): string[] {
  const text = withoutComments(source);
  const forms = [
    /\bfrom\s*["']([^"']+)["']/g,
    /\bimport\s*["']([^"']+)["']/g,
    /\bimport\s*\(\s*["'`]([^"'`]+)["'`]/g,
    /\brequire\s*\(\s*["'`]([^"'`]+)["'`]/g,
  ];
  return forms.flatMap((form) => [...text.matchAll(form)].map((match) => match[1] ?? ""));
}

/** The part of the mirror a file belongs to: a port, its folder, or at the top its own name (`daemon-x.ts` is of daemon). */
export function areaOf(path: string): string {
  if (PORTS.includes(path)) return "ports";
  const [first = "", ...rest] = path.split("/").slice(2);
  return rest.length > 0 ? first : first.replace(/(?:-.*)?\.ts$/, "");
}

/** Every broken rule of direction, as lines. `declared` has the dependencies of each package.json. */
export function findViolations(
  sources: Sources,
  declared: ReadonlyMap<string, ReadonlySet<string>>,
): string[] {
  return [...sources].flatMap(([path, source]) => [
    ...importsOf(source).flatMap((specifier) =>
      specifier.startsWith(".")
        ? checkRelative(path, specifier, sources)
        : checkPackage(path, specifier, declared),
    ),
    ...checkProcess(path, source),
  ]);
}

const packageOf = (path: string): string => path.split("/", 1)[0] ?? "";

function checkRelative(path: string, specifier: string, sources: Sources): string[] {
  const target = normalize(join(dirname(path), specifier));
  const broken = (why: string): string[] => [`${path} imports ${specifier}: ${why}`];
  if (packageOf(target) !== packageOf(path)) return broken("another package is imported by its name");
  if (!sources.has(target)) return broken("there is no such source file");
  if (packageOf(path) !== "p2p-mirror") return [];
  const from = areaOf(path);
  const to = areaOf(target);
  const allowed = MIRROR_AREAS[from];
  if (allowed === undefined) return broken(`the table of directions has no ${from}`);
  return from === to || allowed.includes(to) ? [] : broken(`${from} must not know ${to}`);
}

function checkPackage(
  path: string,
  specifier: string,
  declared: ReadonlyMap<string, ReadonlySet<string>>,
): string[] {
  const own = packageOf(path);
  const broken = (why: string): string[] => [`${path} imports ${specifier}: ${why}`];
  const name = specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
  if (name.startsWith("@p2p-mirror/")) {
    return PACKAGE_DIRECTION[own]?.includes(name) === true ? [] : broken(`${own} must not know ${name}`);
  }
  if (FORBIDDEN[own]?.test(specifier) === true) return broken(`not in ${own}`);
  if (!specifier.startsWith("node:") && declared.get(own)?.has(name) !== true) {
    return broken(`${name} is no dependency in its package.json`);
  }
  if (own !== "p2p-mirror") return [];
  const home = PACKAGE_HOMES.find(({ matches }) => matches.test(specifier));
  return home === undefined || home.areas.includes(areaOf(path))
    ? []
    : broken(`only ${home.areas.join(" and ")} may`);
}

/** Argv, environment, signals and exit codes are main.ts's; what a module needs of them comes in as an option. */
function checkProcess(path: string, source: string): string[] {
  if (path.endsWith("/src/main.ts")) return [];
  const code = source.replaceAll(TOKENS, (token) =>
    token.startsWith("/") || !token.startsWith("`") ? '""' : token,
  );
  const uses = /(?<![\w$.])process\s*(?:\.|\[|\?\.)/.test(code) || /\bglobalThis\s*\.\s*process\b/.test(code);
  const imports = importsOf(source).some((specifier) => /^(?:node:)?process$/.test(specifier));
  return uses || imports ? [`${path} touches process: only main.ts does`] : [];
}
