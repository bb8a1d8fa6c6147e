/** What a benchmark is: one question, one file in `bench/`, found by its name. */
export interface Bench {
  readonly name: string;
  readonly description: string;
  run(args: readonly string[]): Promise<BenchResult>;
}

export interface BenchResult {
  /** Printed as a table, in this order. */
  readonly rows: readonly Readonly<Record<string, string | number>>[];
  readonly targets: readonly Target[];
}

export interface Target {
  readonly what: string;
  readonly got: number;
  /** As the project promises it: `<= 3 ms`. */
  readonly must: string;
  readonly ok: boolean;
}

export const atMost = (what: string, got: number, limit: number, unit = ""): Target => ({
  what,
  got: rounded(got),
  must: `<= ${limit}${unit && ` ${unit}`}`,
  ok: got <= limit,
});

export const atLeast = (what: string, got: number, limit: number, unit = ""): Target => ({
  what,
  got: rounded(got),
  must: `>= ${limit}${unit && ` ${unit}`}`,
  ok: got >= limit,
});

export const rounded = (value: number, digits = 3): number => Number(value.toPrecision(digits));

/** `share` between 0 and 1; of sorted or unsorted values, by nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => percentile(values, 0.5);
