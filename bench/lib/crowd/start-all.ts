/** So many programs at a time get the cores to themselves while they start. */
const AT_ONCE = 4;

/**
 * Starts one thing for each item and hands them to `stack`, which later closes them all at once. When one does not
 * start, those that did are closed.
 */
export async function startAll<Item, Thing extends AsyncDisposable>(
  stack: AsyncDisposableStack,
  items: readonly Item[],
  start: (item: Item, index: number) => Promise<Thing>,
): Promise<Thing[]> {
  const things: Thing[] = [];
  stack.defer(async () => {
    const ended = await Promise.allSettled(things.map((thing) => thing[Symbol.asyncDispose]()));
    throwFirst(ended);
  });
  for (let at = 0; at < items.length; at += AT_ONCE) {
    const few = items.slice(at, at + AT_ONCE);
    const started = await Promise.allSettled(few.map((item, nth) => start(item, at + nth)));
    for (const one of started) if (one.status === "fulfilled") things.push(one.value);
    throwFirst(started);
  }
  return things;
}

function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  for (const one of results) if (one.status === "rejected") throw one.reason;
}
