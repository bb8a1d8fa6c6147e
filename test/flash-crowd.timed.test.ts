/** The bench that decides must itself be right: its bound, its eye for wrong bytes, its links, and that it leaves nothing. */
import { mkdir, readdir, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import t from "tap";
import { flashCrowd } from "../bench/flash-crowd.ts";
import { crowdBound, directBound, payloadRate } from "../bench/lib/crowd/bound.ts";
import { parseCrowdOptions, type CrowdOptions } from "../bench/lib/crowd/options.ts";
import { differences } from "../bench/lib/crowd/verify.ts";
import { exec } from "./rig/exec.ts";
import { blobOf } from "./rig/images.ts";
import { need } from "./rig/need.ts";

const MIB = 1024 * 1024;

await t.test("the bound is set by whatever link is the narrowest", async (t) => {
  const size = 100;
  const links = { upstream: 10, egress: 20, ingress: 20 };
  t.equal(crowdBound(size, 8, links), 10, "one copy through upstream's link");
  t.equal(crowdBound(size, 8, { ...links, upstream: 1000 }), 5, "or each node's own");
  t.equal(
    crowdBound(size, 8, { ...links, upstream: 1000, egress: 5 }),
    17.5,
    "or what nodes can send: 700 / 40",
  );
  t.equal(
    crowdBound(size, 4, { ...links, upstream: 1000, wan: 2 }),
    12.5,
    "paths to upstream carry a share each",
  );
  t.equal(crowdBound(size, 100, { ...links, wan: 2 }), 10, "until upstream's link is the limit");
  t.equal(crowdBound(size, 7, links, 1), 5, "a holder takes upstream's place");
  t.equal(crowdBound(size, 7, { ...links, egress: 5 }, 1), 14, "with its help: 700 / (8 x 5 + 10)");
  t.equal(directBound(size, 8, links), 80, "without anybody's help each copy goes through upstream's link");
  t.equal(directBound(size, 2, { ...links, upstream: 1000, wan: 2 }), 50);
  t.equal(Math.round(payloadRate(100)), 11_955_086, "of 100 Mbit/s, frame headers take 4.4 %");
});

const parse = (args: readonly string[]): CrowdOptions => {
  const [options] = parseCrowdOptions(args);
  if (options === undefined) throw new TypeError("there is one crowd at least");
  return options;
};

await t.test("shapes set what was not given", async (t) => {
  t.match(parse([]), {
    shape: "central",
    nodes: 8,
    size: 256,
    layers: 4,
    via: "fetch",
    stagger: 0,
  });
  t.match(parse(["--shape", "small", "--nodes", "5"]), { nodes: 5, size: 16, layers: 6 });
  t.match(parse(["--shape", "thin", "--wan-per-node", "5"]), {
    upstreamRate: 1000,
    wanPerNode: 5,
  });
  t.match(parse(["--shape", "staggered"]), { stagger: "pull" });
  t.equal(parse(["--chunked"]).via, "cri", "ctr itself never fetches in chunks");
  t.strictSame(parse(["--systems", "mirror,direct"]).systems, ["direct", "mirror"]);
  t.strictSame(
    parseCrowdOptions(["--shape", "fast", "--nodes", "4,8"]).map(({ nodes }) => nodes),
    [4, 8],
  );
});

await t.test("content that is missing, or has another byte, is seen", async (t) => {
  const contentDir = t.testdir();
  const blobs = ["right", "wrong", "missing"].map((text) => blobOf("text/plain", Buffer.from(text)));
  const [right, wrong, missing] = blobs.map(({ descriptor }) => descriptor.digest);
  await mkdir(path.join(contentDir, "blobs/sha256"), { recursive: true });
  const put = (digest = "", text: string): Promise<void> =>
    writeFile(path.join(contentDir, "blobs", digest.replace(":", "/")), text);
  await put(right, "right");
  await put(wrong, "wrung");
  const objects = blobs.map(({ descriptor }) => descriptor);
  const found = await differences(contentDir, { reference: "any", objects, bytes: 0 });
  t.equal(found.length, 2);
  t.match(found[0], new RegExp(`^${wrong} has the bytes of sha256:`));
  t.equal(found[1], `${missing} is missing`);
});

const OPTIONS = ["--nodes", "2", "--size", "4", "--layers", "2", "--warm-up", "0", "--sources"].concat([
  "--upstream-rate",
  "40",
  "--node-rate",
  "80",
]);

await t.test("two nodes, once by each system: every byte is verified, and nothing is left", async (t) => {
  const components = await need(t, { netns: true, components: ["containerd-2.x", "docker-registry"] });
  if (components === undefined) return;
  const { rows, targets, runs } = await flashCrowd(parse(OPTIONS), {
    signal: new AbortController().signal,
    say: (text) => t.comment(text),
  });
  t.equal(rows.length, 3);
  for (const { result, right, last, bound, copies } of [...runs.direct, ...runs.cache, ...runs.mirror]) {
    t.equal(right, 2, `${result.system}: both have the image`);
    t.ok(copies >= 0.99, `${result.system}: it came from upstream, ${copies.toFixed(2)} copies`);
    // Token buckets are full at the start: 256 KiB of the 4 MiB are free.
    t.ok(last > 0.9 * bound, `${result.system}: nobody is faster than links allow`);
  }
  const [direct] = runs.direct;
  const payload = direct?.payloadCopies ?? 0;
  t.ok(payload > 1.99 && payload < 2.02, `without the headers of packets exactly that: ${payload}`);
  const [cache] = runs.cache;
  t.ok(
    direct !== undefined && direct.copies > 1.98 && direct.copies < 2.2,
    `direct: ${direct?.copies} copies`,
  );
  t.ok(direct !== undefined && direct.last > 0.9 * (direct.directBound ?? 0), "which take their time");
  t.equal(direct?.result.daemonPeakBytes, 0);
  t.ok((cache?.result.daemonPeakBytes ?? 0) > 10 * MIB, "the cache's memory is seen");
  t.ok((runs.mirror[0]?.result.daemonCpuSeconds ?? 0) > 0, "the mirrors' CPU time is seen");
  t.ok(targets.some(({ what }) => what.startsWith("bytes out of upstream")));
  t.strictSame(await leftovers(), []);
});

await t.test("ended in the middle, it leaves nothing either", async (t) => {
  const components = await need(t, { netns: true, components: ["containerd-2.x", "docker-registry"] });
  if (components === undefined) return;
  const stop = new AbortController();
  const options = parse([...OPTIONS, "--systems", "direct", "--upstream-rate", "1"]);
  const say = (text: string): void => {
    if (/nodes pull/.test(text)) stop.abort();
  };
  const running = flashCrowd(options, { signal: stop.signal, say });
  await t.rejects(running, { name: "AbortError" });
  t.strictSame(await leftovers(), []);
});

/** Namespaces, folders and processes that this process made. */
async function leftovers(): Promise<string[]> {
  const { stdout } = await exec(["ip", "netns", "list"]);
  const namespaces = stdout.split("\n").filter((line) => line.startsWith(`p2pm.${process.pid}.`));
  const folders = (await readdir(os.tmpdir())).filter(
    (name) => name.startsWith("p2pm-") && name.includes(`-${process.pid}-`),
  );
  const children = (await exec(["ps", "-o", "args=", "--ppid", String(process.pid)])).stdout
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("ps "));
  return [...namespaces, ...folders, ...children];
}
