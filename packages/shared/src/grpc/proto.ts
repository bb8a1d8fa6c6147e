import { fromJSON, type MessageTypeDefinition, type ServiceDefinition } from "@grpc/proto-loader";
import protobuf from "protobufjs";

/**
 * Contracts as proto text inside TypeScript: the compiled package then needs no file next to it, and running from source
 * or from `dist` is the same. Field names come out in camel case.
 */
export class Contracts {
  readonly #definitions: ReturnType<typeof fromJSON>;

  constructor(sources: readonly string[]) {
    const root = new protobuf.Root();
    for (const source of sources) protobuf.parse(source, root);
    // Numbers beyond 2^53 would be rounded: whoever reads one checks it with `Number.isSafeInteger`.
    this.#definitions = fromJSON(root.toJSON(), { longs: Number, defaults: true, enums: String });
  }

  /** @throws Error when the contracts hold no service of that full name: a mistake in this program. */
  service(name: string): ServiceDefinition {
    const found = this.#definitions[name];
    if (found === undefined || "format" in found) throw new Error(`no service ${name} in the contracts`);
    return Object.fromEntries(
      Object.entries(found).filter((entry): entry is [string, ServiceDefinition[string]] =>
        isMethod(entry[1]),
      ),
    );
  }

  /** @throws Error when the contracts hold no message of that full name: a mistake in this program. */
  message(name: string): MessageTypeDefinition<object, object> {
    const found = this.#definitions[name];
    if (found === undefined || !isMessage(found)) throw new Error(`no message ${name} in the contracts`);
    return found;
  }
}

const isMethod = (value: unknown): value is ServiceDefinition[string] =>
  typeof value === "object" && value !== null && "path" in value && "requestSerialize" in value;

const isMessage = (value: object): value is MessageTypeDefinition<object, object> =>
  "format" in value && "deserialize" in value;
