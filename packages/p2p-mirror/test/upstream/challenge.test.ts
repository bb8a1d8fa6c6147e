import t from "tap";
import { parseChallenges } from "../../src/upstream/challenge.ts";

const read = (...headers: string[]): [string, Record<string, string>][] =>
  parseChallenges(headers).map(({ scheme, params }) => [scheme, Object.fromEntries(params)]);

void t.test("challenges of registries in the field", async (t) => {
  t.same(
    read(
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull"',
    ),
    [
      [
        "bearer",
        {
          realm: "https://auth.docker.io/token",
          service: "registry.docker.io",
          scope: "repository:library/nginx:pull",
        },
      ],
    ],
  );
  t.same(read('Basic realm="https://123.dkr.ecr.eu-central-1.amazonaws.com/",service="ecr.amazonaws.com"'), [
    ["basic", { realm: "https://123.dkr.ecr.eu-central-1.amazonaws.com/", service: "ecr.amazonaws.com" }],
  ]);
  t.same(read('BASIC realm="Sonatype Nexus"'), [["basic", { realm: "Sonatype Nexus" }]]);
});

void t.test("commas and quotes inside of quoted strings belong to the value", async (t) => {
  t.same(read('Bearer realm="https://a/t",scope="repository:a:pull,push", error="in \\"valid\\""'), [
    ["bearer", { realm: "https://a/t", scope: "repository:a:pull,push", error: 'in "valid"' }],
  ]);
});

void t.test("several challenges, in one header and in several", async (t) => {
  t.same(read('Negotiate, Basic realm="x", Bearer realm="https://a/t" , service=svc'), [
    ["negotiate", {}],
    ["basic", { realm: "x" }],
    ["bearer", { realm: "https://a/t", service: "svc" }],
  ]);
  t.same(read("Negotiate YWJj==, Basic realm=x"), [
    ["negotiate", {}],
    ["basic", { realm: "x" }],
  ]);
  t.same(read('Basic realm="x"', 'Bearer realm="y"'), [
    ["basic", { realm: "x" }],
    ["bearer", { realm: "y" }],
  ]);
});

void t.test("spaces, case, and the first of two parameters with the same name", async (t) => {
  t.same(read('  ,bearer  Realm = "a" ,, SCOPE="s",scope="later"  '), [
    ["bearer", { realm: "a", scope: "s" }],
  ]);
});

void t.test("what cannot be read ends the list, and never throws or hangs", async (t) => {
  t.same(read(""), []);
  t.same(read('"'), []);
  t.same(read('Bearer realm="open'), [["bearer", {}]]);
  t.same(read('Basic realm="x", Bearer realm=('), [
    ["basic", { realm: "x" }],
    ["bearer", {}],
  ]);
  t.same(read(`Bearer realm="${"x".repeat(9000)}"`), [], "too long");
  t.equal(read(Array.from({ length: 20 }, (_, at) => `S${at}`).join(", ")).length, 8, "too many challenges");
  const many = Array.from({ length: 100 }, (_, at) => `p${at}=v`).join(",");
  t.equal(Object.keys(read(`Bearer ${many}`)[0]?.[1] ?? {}).length, 16, "too many parameters");
  const slow = performance.now();
  read(`Bearer a="${"\\".repeat(8000)}`);
  read(`${"a".repeat(8000)}=`);
  t.ok(performance.now() - slow < 100, "no input makes the expressions backtrack for long");
});
