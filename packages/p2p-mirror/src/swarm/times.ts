/** The times of the swarm, in milliseconds: one place, so that the simulator and tests speak of the same ones. */
export const TIMES = {
  /** A lease without progress for so long is given to others; where pieces are slow later (`Fetchers.patience`). */
  leaseTtl: 2_000,
  /** The first byte may take longer (a token, a redirect), unless upstream answers others meanwhile, and no longer. */
  firstByte: 4_000,
  /** Upstream that answers nobody: a lease is kept for so long before another may try. */
  stalled: 10_000,
  /** How often a member with a lease reports; so that a silent coordinator is noticed within 2 s. */
  reportHolding: 500,
  /** One without: first so often, after `reportSeldomAfter` less often, lest long pulls are all messages. */
  reportIdle: 700,
  reportSeldom: 1_600,
  reportSeldomAfter: 10_000,
  /** A coordinator that has not answered a report for so long is given up. */
  answer: 1_200,
  /** For connecting to a coordinator or neighbour. */
  dial: 1_000,
  /** A member nobody has heard of for so long is out. */
  silent: 4_000,
  /** A coordinator that takes over waits so long for others to join again before it leases what nobody claims. */
  settle: 300,
  /** A coordinator whose channel has broken is tried again for so long, and after such pauses, before another one. */
  goBack: 700,
  goBackPause: 100,
  /** It waits so long for members whose channels have broken. */
  comeBack: 500,
  /** Changes among neighbours are collected before members are told. */
  neighbourNews: 50,
  /** What a coordinator looks after, it looks after so often. */
  tick: 250,
  /**
   * HAVE deltas are collected for so long, or until there are 8 pieces; both more for blobs of many pieces, and longer as a
   * pull lasts. A pull of seconds is all beginning: 100 ms made one of 16 MiB by eight nodes 6 % longer.
   */
  have: 40,
  /** At most, before each goes on alone, so that not all do so at once. */
  aloneJitter: 250,
  /** Alone, the next closest nodes are tried after this. */
  aloneRetry: 1_000,
  /** A node that did not answer is no candidate for so long. */
  avoid: 10_000,
  /** How often a coordinator looks for a closer one. */
  merge: 2_000,
  /**
   * A Retry-After holds all members up for so long at most; after it another one tries: the limit may be that of one
   * node's credentials or address. Who was told obeys it all the time. Below a flight's patience, which is 45 s.
   */
  longestPause: 10_000,
  /** Nodes that hold the whole blob must have delivered something in this time, or upstream is asked, too. */
  holderPatience: 3_000,
  /** A member that left complete, or another holder, is still a source for so long after anybody got a piece. */
  completeHolder: 60_000,
} as const;
