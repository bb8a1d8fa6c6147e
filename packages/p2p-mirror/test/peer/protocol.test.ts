import { digestOf } from "@p2p-mirror/shared";
import t from "tap";
import {
  blobPath,
  formatBusy,
  formatLoad,
  parseBusy,
  parseLoad,
  parsePeerPath,
  recordPath,
} from "../../src/peer/protocol.ts";

await t.test("paths are read as they are written", async (t) => {
  const digest = digestOf(Buffer.from("x"));
  t.same(parsePeerPath(blobPath(digest)), { kind: "blob", digest });
  for (const key of ["tag:docker.io/library/a:1", "repository:a b&key=c", "tag:ü%2F+", "?".repeat(1024)]) {
    t.same(parsePeerPath(recordPath(key)), { kind: "record", key });
  }
  t.same(parsePeerPath(recordPath("ü".repeat(513))), { kind: "malformed" }, "1 KiB is counted in bytes");
});

await t.test("a load is a share between 0 and 1, or unknown", async (t) => {
  t.equal(parseLoad(formatLoad(4, 16)), 0.25);
  t.equal(parseLoad("20/16"), 1);
  for (const text of [undefined, "", "1", "1/0", "-1/2", "1/2/3", "1e3/2", "9999999/1"]) {
    t.equal(parseLoad(text), undefined, String(text));
  }
});

await t.test("of a busy answer only what can be a peer is believed", async (t) => {
  const peer = { id: "12D3KooWgood000000000000000000000000", host: "10.0.0.7", port: 24_221 };
  t.same(parseBusy(formatBusy([peer])), [peer]);
  for (const host of ["fd00::1", "node-1.example.org", "localhost"]) {
    t.equal(parseBusy(formatBusy([{ ...peer, host }])).length, 1, host);
  }
  for (const host of ["", "-a", "a..b", "a/b", "a@b", "a:80", "[::1]", "x".repeat(254), "a\r\nb"]) {
    t.equal(parseBusy(formatBusy([{ ...peer, host }])).length, 0, JSON.stringify(host));
  }
  for (const bad of [
    { ...peer, port: 1.5 },
    { ...peer, port: 65_536 },
    { ...peer, id: "a/b" },
  ]) {
    t.equal(parseBusy(formatBusy([bad])).length, 0, JSON.stringify(bad));
  }
});
