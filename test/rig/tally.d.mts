export interface Tally {
  passed: number;
  failed: number;
  skipped: { name: string; reason: string }[];
}
export function tally(tap: string): Tally;
