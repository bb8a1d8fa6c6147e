/** Whom a fault hits. */
import { MIB } from "./arena.ts";
import type { Role } from "./crowd.ts";

/** On their way or in the buffers of a kernel when their reader is killed or stopped. */
export const ON_THE_WAY = 4 * MIB;

/** The one of whom `value` says most, 0 counting as no. */
function most(roles: readonly Role[], what: string, value: (role: Role) => number): Role {
  const [first] = roles.filter((role) => value(role) > 0).toSorted((a, b) => value(b) - value(a));
  if (first === undefined) throw new Error(`nobody is ${what}`);
  return first;
}

export function coordinatorOf(roles: readonly Role[]): Role {
  return most(roles, "the coordinator", ({ coordinates }) => coordinates);
}

/** One that coordinates nothing, so that one fault is one. */
export function holderOf(roles: readonly Role[]): Role {
  return most(roles, "a lease holder and no coordinator", ({ coordinates, leases, fetched }) =>
    coordinates === 0 && leases > 0 ? 1 + fetched : 0,
  );
}

/** What one node alone may have had from upstream, at most. */
export function lostWith(...roles: readonly Role[]): number {
  return roles.reduce((sum, { fetched }) => sum + fetched + ON_THE_WAY, 0);
}
