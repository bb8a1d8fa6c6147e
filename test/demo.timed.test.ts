/** `npm run demo` must show what it says: the figures it prints, asserted. */
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { PassThrough } from "node:stream";
import t, { type Test } from "tap";
import { demo } from "../bench/demo.ts";
import { until } from "./rig/until.ts";

const MIB = 1024 * 1024;

/** No process, no server, no folder of this test's process. */
async function nothingIsLeft(t: Test): Promise<void> {
  await until("processes and servers are gone", () =>
    process.getActiveResourcesInfo().every((it) => it !== "ProcessWrap" && it !== "TCPServerWrap"),
  );
  const folders = (await readdir(tmpdir())).filter((name) => name.startsWith(`p2pm-mirror-${process.pid}-`));
  t.same(folders, []);
}

await t.test("five nodes at once cost upstream one copy, and a sixth needs no upstream", async (t) => {
  let said = "";
  const output = new PassThrough();
  output.on("data", (chunk: Buffer) => (said += chunk.toString("utf8")));
  const { rows, copies, seconds, boundSeconds } = await demo({
    signal: new AbortController().signal,
    output,
    stay: false,
  });
  t.comment(said);
  t.equal(rows.length, 6);
  t.ok(copies >= 1 && copies <= 1.1, `the registry sent ${copies.toFixed(3)} images`);
  const together = rows.slice(0, 5);
  const late = rows.at(-1);
  const fetched = together.reduce((sum, row) => sum + row.fromUpstream, 0);
  t.ok(fetched <= 1.1 * 24.1 * MIB, "the mirrors' own metrics agree with what passed the link");
  for (const { node, fromUpstream, fromPeers } of together) {
    t.ok(fromUpstream + fromPeers >= 24 * MIB, `${node} counts all it has got`);
    t.ok(fromPeers > 0, `${node} had a part of it from others`);
  }
  const coordinated = together.flatMap((row) => row.coordinated);
  t.equal(new Set(coordinated).size, 3, "of each layer somebody said who fetches what");
  for (const { node, coordinated } of together)
    t.match(said, new RegExp(`${node}: .+ from peers, layers coordinated: ${coordinated.length}\n`));
  t.equal(late?.fromUpstream, 0, "the registry was gone");
  t.ok((late?.fromPeers ?? 0) >= 24 * MIB);
  t.ok(seconds >= boundSeconds, "nobody is faster than the uplink");
  t.ok(seconds < 5 * boundSeconds, `${seconds.toFixed(1)} s: each for itself takes ${5 * boundSeconds} s`);
  t.ok(said.includes(`The registry sent the image ${copies.toFixed(2)} times for 6 nodes.\n`));
  t.ok(said.includes(`after ${seconds.toFixed(1)} s`));
  await nothingIsLeft(t);
});

for (const hurry of [undefined, new AbortController()]) {
  const what = hurry === undefined ? "a signal ends it" : "a second signal ends it at once";
  await t.test(`on a terminal each node has a bar; ${what} and leaves nothing`, async (t) => {
    const controller = new AbortController();
    const output = Object.assign(new PassThrough(), { isTTY: true, columns: 120 });
    let said = "";
    output.on("data", (chunk: Buffer) => {
      said += chunk.toString("utf8");
      if (!/node 5 .*MiB from upstream/.test(said) || !/, layers coordinated: [1-3]/.test(said)) return;
      controller.abort(new DOMException("enough", "AbortError"));
      hurry?.abort();
    });
    const running = demo({
      signal: controller.signal,
      output,
      stay: true,
      ...(hurry && { hurry: hurry.signal }),
    });
    await t.rejects(running, { name: "AbortError" });
    for (let n = 1; n <= 5; n += 1)
      t.match(
        said,
        new RegExp(`node ${n} .+ \\d+% .+ from upstream, .+ from peers, layers coordinated: \\d`),
      );
    t.ok(said.lastIndexOf("\u001B[?25h") > said.lastIndexOf("\u001B[?25l"), "the cursor is back");
    await nothingIsLeft(t);
  });
}
