/** What the swarm is told of a lease for which there is nobody to ask. */
import { NotFoundError, SourceError, VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { Candidates } from "../../src/transfer/candidates.ts";
import { reasonWithout } from "../../src/transfer/hand-back-reason.ts";
import type { BlobSource } from "../../src/transfer/source.ts";
import { ScriptedSource } from "./scripted-source.ts";

/** Upstream was asked once, before the flight had a byte, and this came of it. */
function afterFailure(error: Error): Candidates {
  const candidates = new Candidates<BlobSource>({
    peers: async function* () {},
    named: () => undefined,
    clock: new VirtualClock(),
    changed: () => undefined,
  });
  candidates.addUpstream(new ScriptedSource("registry", { kind: "upstream", bytes: Buffer.alloc(1) }));
  const asked = candidates.takeUpstream();
  if (asked === undefined) throw new TypeError("upstream is there to be asked");
  candidates.failed(asked, error, { progressed: false, begun: false, patienceMs: 0 });
  return candidates;
}

await t.test("upstream has refused: this member has nothing to fetch", async (t) => {
  for (const error of [new SourceError("DENIED", "registry"), new NotFoundError("BLOB_UNKNOWN", "it")]) {
    const candidates = afterFailure(error);
    t.notOk(candidates.mayAskUpstream);
    t.same(reasonWithout(candidates), { kind: "unauthorized" });
    candidates.look();
    t.notOk(candidates.mayAskUpstream, "whenever it looks again");
    candidates.close();
  }
});

await t.test("upstream has failed: this member may fetch when that is over", async (t) => {
  const candidates = afterFailure(new SourceError("UNREACHABLE", "registry"));
  t.notOk(candidates.mayAskUpstream, "not now");
  t.same(reasonWithout(candidates), { kind: "failed" });
  candidates.look();
  t.ok(candidates.mayAskUpstream, "when it looks again");
  candidates.close();
});
