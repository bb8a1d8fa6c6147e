/** Neighbours of a member in a large swarm, and at most (a small one is a full mesh). */
const DEGREE = 8;
export const MAX_NEIGHBOURS = 12;
/** Of them in the own zone, where it has so many. */
const ZONE_DEGREE = 6;
/** A member with fewer than this is given others. */
const LOWEST_DEGREE = 5;
/** Random tries to find what fits. */
const TRIES = 24;

interface Node {
  readonly id: string;
  readonly zone: string;
  readonly links: Set<Node>;
}

/**
 * Who is told of whom: a random graph of 8 links each (up to 13 members: everybody with everybody), most of them in the
 * own zone, always some beyond. A newcomer is put into the middle of links that exist, which keeps everyone's count; a
 * ring through all members keeps the graph in one piece, whoever leaves. Eight, since every link is told of every piece
 * once: with twelve there are half as many messages more, and spreading is no faster.
 */
export class MeshGraph {
  readonly #nodes = new Map<string, Node>();
  /** In the order of the ring. */
  readonly #ring: Node[] = [];
  readonly #zones = new Map<string, Node[]>();
  readonly #random: () => number;
  readonly #changed = new Set<string>();

  constructor(random: () => number) {
    this.#random = random;
  }

  neighboursOf(id: string): string[] {
    return [...(this.#nodes.get(id)?.links ?? [])].map((node) => node.id);
  }

  /** Members whose neighbours are others since this was asked last. */
  takeChanged(): string[] {
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  add(id: string, zone: string): void {
    if (this.#nodes.has(id)) return;
    const node: Node = { id, zone, links: new Set() };
    this.#enterRing(node);
    this.#nodes.set(id, node);
    const zoneNodes = this.#zones.get(zone) ?? [];
    this.#zones.set(zone, zoneNodes);
    if (this.#nodes.size <= MAX_NEIGHBOURS + 1) {
      for (const other of this.#ring) if (other !== node) this.#link(node, other);
    }
    this.#fill(node, zoneNodes, ZONE_DEGREE + 1);
    this.#fill(node, this.#ring, DEGREE);
    zoneNodes.push(node);
  }

  remove(id: string): void {
    const node = this.#nodes.get(id);
    if (node === undefined) return;
    const left = [...node.links];
    for (const other of left) this.#unlink(node, other);
    this.#leaveRing(node);
    this.#nodes.delete(id);
    const zoneNodes = this.#zones.get(node.zone) ?? [];
    zoneNodes.splice(zoneNodes.indexOf(node), 1);
    if (zoneNodes.length === 0) this.#zones.delete(node.zone);
    for (const other of left) this.#refill(other);
    this.#changed.delete(id);
  }

  /** These two cannot reach each other: others take their places. A link of the ring stays, for everybody's sake. */
  separate(a: string, b: string): void {
    const [one, other] = [this.#nodes.get(a), this.#nodes.get(b)];
    if (one === undefined || other === undefined || !this.#mayUnlink(one, other)) return;
    this.#unlink(one, other);
    this.#refill(one, other);
    this.#refill(other, one);
  }

  #refill(node: Node, except?: Node): void {
    if (node.links.size >= LOWEST_DEGREE) return;
    this.#fill(node, this.#zones.get(node.zone) ?? [], ZONE_DEGREE, except);
    this.#fill(node, this.#ring, DEGREE, except);
  }

  /** Links the node with random ones until it has so many, or nothing fits. */
  #fill(node: Node, among: readonly Node[], degree: number, except?: Node): void {
    const fits = (other: Node): boolean => other !== node && other !== except && !node.links.has(other);
    for (let tries = 0; tries < TRIES && node.links.size < degree; tries += 1) {
      const one = this.#pick(among);
      if (one === undefined || !fits(one)) continue;
      if (one.links.size < DEGREE) {
        this.#link(node, one);
        continue;
      }
      const other = this.#pick([...one.links]);
      if (other === undefined || !fits(other) || !this.#mayUnlink(one, other)) continue;
      this.#unlink(one, other);
      this.#link(one, node);
      this.#link(other, node);
    }
  }

  #enterRing(node: Node): void {
    const at = Math.floor(this.#random() * (this.#ring.length + 1));
    const before = this.#ring.at(at - 1);
    const after = this.#ring[at] ?? this.#ring[0];
    this.#ring.splice(at, 0, node);
    if (before === undefined || after === undefined) return;
    // In a full mesh the link between them stays.
    if (this.#ring.length > MAX_NEIGHBOURS + 1) this.#unlink(before, after);
    this.#link(before, node);
    if (after !== before) this.#link(node, after);
  }

  #leaveRing(node: Node): void {
    const at = this.#ring.indexOf(node);
    const before = this.#ring.at(at - 1);
    const after = this.#ring[at + 1] ?? this.#ring[0];
    this.#ring.splice(at, 1);
    if (before !== undefined && after !== undefined && before !== after) this.#link(before, after);
  }

  #mayUnlink(a: Node, b: Node): boolean {
    if (!a.links.has(b)) return false;
    const at = this.#ring.indexOf(a);
    return this.#ring.at(at - 1) !== b && (this.#ring[at + 1] ?? this.#ring[0]) !== b;
  }

  #link(a: Node, b: Node): void {
    if (a === b || a.links.has(b)) return;
    a.links.add(b);
    b.links.add(a);
    this.#changed.add(a.id).add(b.id);
  }

  #unlink(a: Node, b: Node): void {
    if (!a.links.delete(b)) return;
    b.links.delete(a);
    this.#changed.add(a.id).add(b.id);
  }

  #pick(list: readonly Node[]): Node | undefined {
    return list[Math.floor(this.#random() * list.length)];
  }
}
