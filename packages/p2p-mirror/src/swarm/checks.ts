/**
 * After a wrong blob nobody is believed alone, so each piece must come from upstream once more. Those that have signed
 * pieces of it share that out, each the pieces of the others: about one copy in all, or much less, since it ends as soon
 * as one is found that is not what its signer said.
 *
 * `doubted`: who has signed each piece that is in doubt. `helpers`: who shares the work, `self` among them. Returns the
 * pieces that are `self`'s, in order: first those that two say different things of, which are everybody's, since that
 * tells who lied; then the first one of each signer, the second one, and so on, since who lies does so most of the time.
 */
export function sharedOut(
  doubted: ReadonlyMap<number, readonly string[]>,
  helpers: ReadonlySet<string>,
  self: string,
): number[] {
  const order = [...helpers].toSorted();
  const nth = new Map<string, number>();
  const mine: { readonly piece: number; readonly rank: number }[] = [];
  for (const [piece, signers] of [...doubted].toSorted(([a], [b]) => a - b)) {
    const [signer] = signers;
    if (signer === undefined) continue;
    if (signers.filter((one) => helpers.has(one)).length > 1) {
      mine.push({ piece, rank: -1 });
      continue;
    }
    const rank = nth.get(signer) ?? 0;
    nth.set(signer, rank + 1);
    const able = order.filter((one) => !signers.includes(one));
    if (able[piece % able.length] === self) mine.push({ piece, rank });
  }
  return mine.toSorted((a, b) => a.rank - b.rank || a.piece - b.piece).map(({ piece }) => piece);
}
