import { systemClock, type Clock } from "@p2p-mirror/shared";

/** Time that passes when told; `tick` resolves when what was due is over, since the next is then asked for. */
export function manualClock(): Clock & { tick(): Promise<void> } {
  let due: (() => void) | undefined;
  let asked = Promise.withResolvers<void>();
  return {
    now: () => systemClock.now(),
    date: () => systemClock.date(),
    after: (_ms, callback) => {
      due = callback;
      asked.resolve();
      return () => (due = undefined);
    },
    async tick() {
      asked = Promise.withResolvers();
      due?.();
      await asked.promise;
    },
  };
}
