import t from "tap";
import { digestOf } from "@p2p-mirror/shared";
import { packBits } from "../../src/swarm/bitmap.ts";
import type { Join, Told } from "../../src/swarm/messages.ts";
import { Room, type RoomOptions } from "../../src/swarm/room.ts";
import { PieceGeometry } from "../../src/transfer/pieces.ts";
import { MIB, seeded } from "./rig.ts";

const SIZE = 64 * MIB;
const geometry = new PieceGeometry(SIZE);
const digest = digestOf(Buffer.from("a blob"));

const createRoom = (options: Partial<RoomOptions> = {}): Room =>
  new Room({ geometry, maxFetchers: 8, maxMembers: 100, random: seeded(5), settleUntil: 0, ...options });

const joining = (init: Partial<Join> & { pieces?: readonly number[] } = {}): Join => {
  const { pieces = [], ...rest } = init;
  return {
    kind: "join",
    digest,
    size: SIZE,
    host: "10.0.0.1",
    port: 24221,
    contactPort: 24222,
    zone: "",
    load: 0,
    have: packBits(geometry.count, (piece) => pieces.includes(piece)),
    leases: [],
    again: false,
    unauthorized: false,
    hops: 0,
    avoid: [],
    ...rest,
  };
};

const report = (pieces: readonly number[], unreachable: readonly string[] = []) =>
  ({ kind: "progress", pieces, leases: [], load: 0, unreachable, lost: [], holders: [] }) as const;

const all = Array.from({ length: geometry.count }, (_, piece) => piece);

/** Joins and takes the answer. */
function join(room: Room, id: string, now = 0, init: Parameters<typeof joining>[0] = {}): Told {
  if (!room.join(id, joining(init), now)) throw new Error(`${id} was turned away`);
  if (!room.takeUrgent(now).includes(id)) throw new Error(`${id} is not answered`);
  const told = room.toldTo(id, now);
  if (told === undefined) throw new Error(`${id} is told nothing`);
  return told;
}

const idsOf = ({ neighbours }: Told): string[] => neighbours.map(({ peer }) => peer.id).toSorted();

await t.test("the answer to the first join has a lease, to later ones neighbours, too", (t) => {
  const room = createRoom();
  const first = join(room, "a", 0, { pieces: [3] });
  t.match(first, { leases: [{ first: 0 }], neighbours: [], fetchers: 1, zoneRank: 0, zoneSize: 1 });
  const second = join(room, "b");
  t.equal(second.leases.length, 1);
  t.same(idsOf(second), ["a"]);
  t.equal(second.neighbours[0]?.have[0], 8, "with what it has");
  t.same(room.takeNeedy().toSorted(), ["a"], "and the other hears of it soon");
  const news = room.toldTo("a", 0);
  t.same(news && idsOf(news), ["b"]);
  t.same(room.takeNeedy(), []);
  t.same(room.toldTo("a", 0)?.neighbours, [], "once");
  t.end();
});

await t.test("a piece that some member has is not leased; when it goes, it is", (t) => {
  const room = createRoom();
  join(room, "holder", 0, { pieces: all.slice(1), unauthorized: true });
  const told = join(room, "b");
  t.match(told.leases, [{ first: 0, end: 1 }]);
  room.gone("holder");
  room.progress("b", report([0]), 100);
  room.takeUrgent(100);
  t.match(room.toldTo("b", 100)?.leases, [{ first: 1, end: geometry.count }]);
  t.same(room.toldTo("b", 100)?.gone, [], "said once");
  t.end();
});

await t.test("a member that is silent for more than 4 s is out, and its leases are another's", (t) => {
  const room = createRoom();
  join(room, "a");
  join(room, "b");
  room.progress("b", report([]), 3_900);
  t.same(room.tick(4_000), []);
  t.same(room.tick(4_100), ["a"]);
  room.takeUrgent(4_100);
  t.ok(room.leases.every(({ holder }) => holder === "b"));
  t.same(room.members, ["b"]);
  t.same(room.toldTo("b", 4_100)?.gone, ["a"]);
  t.end();
});

await t.test("a member that leaves complete stays a source; nobody is told that it is gone", (t) => {
  const room = createRoom();
  join(room, "a");
  join(room, "b");
  room.toldTo("a", 0);
  room.progress("a", report(all), 100);
  room.leave("a", true, 200);
  t.equal(room.size, 1);
  t.same(room.toldTo("b", 200)?.gone, []);
  room.takeUrgent(200);
  t.same(room.leases, [], "nothing is missing");
  const late = join(room, "c", 300);
  t.match(
    late.neighbours.find(({ peer }) => peer.id === "a"),
    { left: true },
  );
  t.same(idsOf(late), ["a", "b"]);
  t.end();
});

await t.test("a source that left counts until somebody cannot reach it, or a minute", (t) => {
  for (const how of ["unreachable", "a minute"]) {
    const room = createRoom();
    join(room, "a");
    join(room, "b");
    room.progress("a", report(all), 0);
    room.leave("a", true, 0);
    room.takeUrgent(0);
    let now = 100;
    if (how === "unreachable") room.progress("b", report([], ["a"]), now);
    else {
      for (; now < 59_000; now += 1_000) room.progress("b", report([]), now);
      room.tick(now);
      room.takeUrgent(now);
      t.same(room.leases, []);
      now = 61_000;
      room.progress("b", report([]), now);
      t.same(room.tick(now), [], "it is not one that must be told");
    }
    room.takeUrgent(now);
    t.match(room.leases, [{ holder: "b", first: 0, end: geometry.count }], how);
  }
  t.end();
});

await t.test("a source that left counts as long as somebody gets pieces, for a slow member too", (t) => {
  const room = createRoom();
  join(room, "a");
  join(room, "slow");
  room.progress("a", report(all), 0);
  room.leave("a", true, 0);
  for (const piece of all.slice(0, -1)) {
    const now = (piece + 1) * 3_000;
    room.progress("slow", report([piece]), now);
    room.tick(now);
    room.takeUrgent(now);
    if (room.leases.length > 0) return t.fail(`after ${now} ms upstream is asked`);
  }
  t.same(room.members, ["slow"]);
  return t.end();
});

await t.test("a holder outside that somebody found counts for all, unless it brings next to nothing", (t) => {
  for (const how of ["delivers", "does not"]) {
    const room = createRoom();
    const outside = { id: "outside", host: "10.0.0.9", port: 24221 };
    join(room, "a");
    join(room, "b");
    room.progress("a", { ...report([]), holders: [outside] }, 10);
    room.takeUrgent(10);
    t.same(room.leases, [], "upstream is not asked");
    t.match(room.toldTo("b", 10)?.neighbours, [{ peer: outside, left: true }]);
    for (const id of ["a", "b"]) room.progress(id, report(how === "delivers" ? [1, 2, 3, 4, 5] : [0]), 2_900);
    room.tick(3_100);
    room.takeUrgent(3_100);
    t.equal(room.leases.length > 0, how === "does not", how);
  }
  t.end();
});

await t.test(
  "a holder outside is judged anew: one that brings as much as upstream does is good again",
  (t) => {
    // Beyond what leases are for.
    const beyond = all.slice(-8);
    for (const [how, pieces] of [
      ["more", beyond],
      ["less", beyond.slice(-2)],
    ] as const) {
      const room = createRoom();
      join(room, "a");
      join(room, "b");
      room.progress("a", { ...report([]), holders: [{ id: "outside", host: "10.0.0.9", port: 24221 }] }, 10);
      room.tick(3_100);
      room.takeUrgent(3_100);
      const [lease] = room.leases;
      if (lease === undefined) return t.fail("upstream is asked");
      const leases = [{ id: lease.id, bytes: 4 * geometry.pieceSize }];
      room.progress(lease.holder, { ...report([]), leases }, 5_000);
      room.progress("b", report(pieces), 5_500);
      room.tick(6_200);
      room.takeUrgent(6_200);
      t.equal(room.leases.length === 0, how === "more", how);
    }
    return t.end();
  },
);

await t.test("a holder outside that was good must keep an eighth of what it has brought", (t) => {
  for (const [later, isGood] of [
    [4, false],
    [20, true],
  ] as const) {
    const room = createRoom();
    join(room, "a");
    join(room, "b");
    room.progress("a", { ...report([]), holders: [{ id: "outside", host: "10.0.0.9", port: 24221 }] }, 10);
    room.progress("a", report(all.slice(0, 64)), 2_900);
    room.tick(3_100);
    for (let now = 4_000; now <= 8_000; now += 2_000)
      for (const id of ["a", "b"]) room.progress(id, report([]), now);
    room.progress("b", report(all.slice(64, 64 + later)), 9_000);
    room.tick(9_200);
    room.takeUrgent(9_200);
    t.equal(room.leases.length === 0, isGood, `${later} pieces in 6 s, after 64 in 3 s`);
  }
  t.end();
});

await t.test("a holder that somebody could not reach is not taken at anybody's word again", (t) => {
  const room = createRoom();
  const outside = { id: "outside", host: "10.0.0.9", port: 24221 };
  join(room, "a");
  join(room, "b");
  room.progress("a", { ...report([]), holders: [outside] }, 10);
  room.progress("b", report([], ["outside"]), 20);
  room.progress("a", { ...report([]), holders: [outside] }, 30);
  room.takeUrgent(30);
  t.equal(room.leases.length, 2, "upstream is asked");
  t.ok(room.toldTo("a", 30)?.neighbours.every(({ peer }) => peer.id !== "outside"));
  t.end();
});

await t.test("whoever leaves without having all, whatever it says, is no source", (t) => {
  const room = createRoom();
  join(room, "a");
  join(room, "b");
  room.progress("a", report([0, 1, 2]), 0);
  room.leave("a", true, 0);
  room.takeUrgent(0);
  t.ok(room.leases.some(({ first, holder }) => first === 0 && holder === "b") || room.leases.length > 0);
  t.same(idsOf(join(room, "c")), ["b"]);
  t.end();
});

await t.test(
  "members of another coordinator keep what they hold, and new leases wait until all had time to come",
  (t) => {
    const room = createRoom({ settleUntil: 300 });
    const held = [{ id: 77, first: 20, end: 30 }];
    t.same(join(room, "late to have none", 10, { again: true }).leases, [], "not yet");
    t.match(join(room, "holder", 100, { again: true, leases: held }).leases, held);
    t.same(room.takeUrgent(299), []);
    const told = room.takeUrgent(300);
    t.ok(told.includes("late to have none"));
    const leases = room.toldTo("late to have none", 300)?.leases ?? [];
    t.match(leases, [{ first: 0 }]);
    t.ok((leases[0]?.end ?? 99) <= 20);
    t.end();
  },
);

await t.test("the number in its zone tells a member which pieces it brings in", (t) => {
  const room = createRoom();
  const zones = ["x", "y", "x", "y", "y"];
  for (const [nth, zone] of zones.entries()) join(room, `m${nth}`, 0, { zone });
  const ranks = zones.map((_, nth) => {
    const told = room.toldTo(`m${nth}`, 0);
    return [told?.zoneRank, told?.zoneSize];
  });
  t.same(ranks, [
    [0, 2],
    [0, 3],
    [1, 2],
    [1, 3],
    [2, 3],
  ]);
  room.gone("m0");
  t.match(room.toldTo("m2", 0), { zoneRank: 0, zoneSize: 1 });
  t.end();
});

await t.test("around a holder, members of a zone that has grown much hear of their turns soon", (t) => {
  const room = createRoom();
  const ids = Array.from({ length: 12 }, (_, nth) => `m${nth}`);
  for (const id of ids.slice(0, 10)) join(room, id);
  for (const id of ids.slice(0, 10)) room.toldTo(id, 0);
  room.takeNeedy();
  for (const id of ids.slice(10)) join(room, id);
  t.same(room.takeNeedy(), [], "nobody has it: turns do not matter yet");
  const outside = { id: "outside", host: "10.1.1.1", port: 24221 };
  room.progress("m0", { ...report([]), holders: [outside] }, 1);
  t.same(room.takeNeedy().toSorted(), ids.slice(0, 10).toSorted(), "those who know of ten");
  for (const id of ids) room.toldTo(id, 1);
  for (const id of ids.slice(0, 5)) room.gone(id);
  t.same(room.takeNeedy(), [], "when it shrinks, later");
  t.end();
});

await t.test("neighbours that cannot reach each other are not named to each other again", (t) => {
  const room = createRoom();
  const ids = Array.from({ length: 30 }, (_, nth) => `m${nth}`);
  for (const id of ids) join(room, id);
  for (const id of ids) room.toldTo(id, 0);
  const lookup = (id: string): Told["gone"] => room.toldTo(id, 1)?.gone ?? [];
  room.progress("m3", report([], ids), 1);
  t.ok(lookup("m3").length === 0, "it knows that already");
  t.ok(
    ids.some((id) => id !== "m3" && lookup(id).includes("m3")),
    "the others are told",
  );
  t.end();
});

await t.test(
  "what a member has that two others cannot reach is leased again; one alone may be cut off itself",
  (t) => {
    const room = createRoom();
    for (const id of ["a", "b", "c"]) join(room, id);
    const [mine, ...rest] = all;
    room.progress("a", report(all), 0);
    room.takeUrgent(0);
    t.same(room.leases, []);
    room.progress("b", report([], ["a"]), 10);
    room.takeUrgent(10);
    t.same(room.leases, [], "one says so");
    room.progress("b", report([], ["a"]), 20);
    room.takeUrgent(20);
    t.same(room.leases, [], "twice");
    room.progress("c", report([mine ?? 0], ["a"]), 30);
    room.takeUrgent(30);
    t.ok(
      room.leases.some(({ first }) => first === rest[0]),
      "two say so",
    );
    room.gone("a");
    room.takeUrgent(40);
    t.ok(
      room.leases.every(({ first }) => first !== mine),
      "what others have is counted right afterwards",
    );
    t.end();
  },
);

await t.test("of two members one that cannot be reached is enough", (t) => {
  const room = createRoom();
  for (const id of ["a", "b"]) join(room, id);
  room.progress("a", report(all), 0);
  room.progress("b", report([], ["a"]), 10);
  room.takeUrgent(10);
  t.ok(room.leases.length > 0);
  t.end();
});

await t.test("more members than there may be are turned away", (t) => {
  const room = createRoom({ maxMembers: 3 });
  for (const id of ["a", "b", "c"]) t.ok(room.join(id, joining(), 0));
  t.notOk(room.join("d", joining(), 0));
  t.ok(room.join("a", joining(), 0), "who is in may join again");
  t.equal(room.size, 3);
  t.end();
});

await t.test("what is reported of pieces that there are not, or by who is no member, does nothing", (t) => {
  const room = createRoom();
  join(room, "a");
  room.progress("a", report([geometry.count, 8_191]), 0);
  room.progress("stranger", report(all), 0);
  room.handBack(
    "stranger",
    { kind: "hand-back", lease: room.leases[0]?.id ?? 0, why: { kind: "failed" } },
    0,
  );
  room.leave("stranger", true, 0);
  room.takeUrgent(0);
  t.match(room.leases, [{ holder: "a", first: 0, end: geometry.count }]);
  t.end();
});
