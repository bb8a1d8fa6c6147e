import t from "tap";
import { Lifecycle, type Service } from "@p2p-mirror/shared";

/** A service that writes down what happens to it. */
function recorder(log: string[]): (name: string, faults?: { start?: Error; close?: Error }) => Service {
  return (name, faults = {}) => ({
    name,
    start: async () => {
      log.push(`start ${name}`);
      if (faults.start !== undefined) throw faults.start;
    },
    close: async () => {
      // Later than its call, so that a close that is not awaited shows.
      await new Promise((resolve) => setImmediate(resolve));
      log.push(`close ${name}`);
      if (faults.close !== undefined) throw faults.close;
    },
  });
}

const running = new AbortController().signal;

await t.test("services close in reverse, one after the other", async (t) => {
  const log: string[] = [];
  const service = recorder(log);
  const lifecycle = new Lifecycle();
  for (const name of ["a", "b", "c"]) await lifecycle.start(service(name), running);
  await lifecycle.close();
  t.same(log, ["start a", "start b", "start c", "close c", "close b", "close a"]);
});

await t.test("start hands the service back", async (t) => {
  const service = recorder([])("a");
  t.equal(await new Lifecycle().start(service, running), service);
});

await t.test("a service that failed to start is closed with the others", async (t) => {
  const log: string[] = [];
  const service = recorder(log);
  const lifecycle = new Lifecycle();
  await lifecycle.start(service("a"), running);
  await t.rejects(lifecycle.start(service("b", { start: new Error("port taken") }), running), {
    message: "port taken",
  });
  await lifecycle.close();
  t.same(log, ["start a", "start b", "close b", "close a"]);
});

await t.test("nothing starts after the signal", async (t) => {
  const log: string[] = [];
  const lifecycle = new Lifecycle();
  await t.rejects(lifecycle.start(recorder(log)("a"), AbortSignal.abort(new Error("interrupted"))), {
    message: "interrupted",
  });
  await lifecycle.close();
  t.same(log, [], "and what never started is not closed");
});

await t.test("an error while closing does not keep the others open, and comes out at the end", async (t) => {
  const log: string[] = [];
  const service = recorder(log);
  const lifecycle = new Lifecycle();
  const cause = new Error("disk gone");
  await lifecycle.start(service("a"), running);
  await lifecycle.start(service("b", { close: cause }), running);
  await lifecycle.start(service("c"), running);
  await t.rejects(lifecycle.close(), { errors: [{ message: "closing b failed", cause }] });
  t.same(log.slice(3), ["close c", "close b", "close a"]);
});

await t.test("closing twice closes once, and both wait for the end", async (t) => {
  const log: string[] = [];
  const lifecycle = new Lifecycle();
  await lifecycle.start(recorder(log)("a"), running);
  await Promise.all([lifecycle.close(), lifecycle.close()]);
  await lifecycle.close();
  t.same(log, ["start a", "close a"]);
});
