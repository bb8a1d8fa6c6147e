import type { Multiaddr } from "@multiformats/multiaddr";
import t from "tap";
import { silentLogger } from "@p2p-mirror/shared";
import { until } from "../../../../test/rig/until.ts";
import { Bootstrapper } from "../../src/routing/bootstrapper.ts";

await t.test(
  "a name means all its addresses, and is asked again: nodes that came later are found",
  async (t) => {
    const answers = [undefined, ["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "192.0.2.3"]];
    const dialled: string[] = [];
    let asked = 0;
    const bootstrapper = new Bootstrapper(
      { bootstrap: [{ host: "mirrors.test", port: 24222 }], minRetryMs: 1, maxRetryMs: 2, againMs: 1 },
      {
        lookup: async (name) => {
          t.equal(name, "mirrors.test");
          const answer = answers[Math.min(asked++, answers.length - 1)];
          if (answer === undefined) throw new Error("no such name yet");
          return answer;
        },
        remembered: () => [],
        isKnown: (address) => dialled.includes(address.toString()),
        isConnected: () => asked > 2,
        dial: async (address: Multiaddr) => void dialled.push(address.toString()),
        logger: silentLogger(),
      },
    );
    t.teardown(() => bootstrapper.close());
    bootstrapper.start();
    await until("all addresses of all answers were dialled", () => dialled.length === 4);
    t.same(new Set(dialled.slice(0, 2)), new Set(["/ip4/192.0.2.1/tcp/24222", "/ip6/2001:db8::1/tcp/24222"]));
    t.same(new Set(dialled.slice(2)), new Set(["/ip4/192.0.2.2/tcp/24222", "/ip4/192.0.2.3/tcp/24222"]));
    const before = asked;
    await until("it is asked on, with the cluster found", () => asked > before + 1);
    t.equal(dialled.length, 4, "who is known is not dialled again");
  },
);

await t.test("who did not answer, and has come by itself since, is no failure any more", async (t) => {
  const came = new Set<string>();
  const bootstrapper = new Bootstrapper(
    {
      bootstrap: ["192.0.2.1", "192.0.2.2", "mirrors.test"].map((host) => ({ host, port: 24222 })),
      // No second round while this test looks.
      againMs: 3_600_000,
    },
    {
      lookup: async () => Promise.reject(new Error("no such name")),
      remembered: () => [],
      isKnown: (address) => came.has(address.toString()),
      isConnected: () => true,
      dial: async () => Promise.reject(new Error("not there yet")),
      logger: silentLogger(),
    },
  );
  t.teardown(() => bootstrapper.close());
  bootstrapper.start();
  const failed = (): string[] => bootstrapper.failures.map(({ address }) => address).toSorted();
  await until("all were tried", () => failed().length === 3);
  came.add("/ip4/192.0.2.1/tcp/24222");
  t.same(failed(), ["/ip4/192.0.2.2/tcp/24222", "mirrors.test:24222"]);
});
