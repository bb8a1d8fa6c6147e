import t from "tap";
import { raceSignal, SourceError } from "@p2p-mirror/shared";
import { toOciError } from "../../src/http/oci-errors.ts";
import { HurriedClock } from "./hurried-clock.ts";
import { APP, oneNode } from "./one-node.ts";

const { signal } = new AbortController();

await t.test(
  "rule 0.6: a tag that upstream keeps thinking about is a decline in the end, no 500",
  async (t) => {
    const node = await oneNode(t, {
      clock: new HurriedClock(1000),
      resolve: async (_, __, options) => raceSignal(new Promise(() => undefined), options?.signal),
    });
    const error: unknown = await node.tags.resolve(APP, "v1", { signal }).catch((reason: unknown) => reason);
    t.ok(error instanceof SourceError && error.code === "NO_FIRST_BYTE", String(error));
    t.equal(toOciError(error, "tag")?.status, 404);
  },
);
