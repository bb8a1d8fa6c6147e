/** Readers for decoded messages: proto-loader types them as `object`. A field that is not there reads as its default. */
export const field = (message: unknown, name: string): unknown =>
  typeof message === "object" && message !== null ? Reflect.get(message, name) : undefined;

export const stringField = (message: unknown, name: string): string => {
  const value = field(message, name);
  return typeof value === "string" ? value : "";
};

/** Undefined for what a number cannot hold exactly, and for negative values: no size or offset has them. */
export const sizeField = (message: unknown, name: string): number | undefined => {
  const value = field(message, name);
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
};

export const bytesField = (message: unknown, name: string): Buffer => {
  const value = field(message, name);
  return Buffer.isBuffer(value) ? value : Buffer.alloc(0);
};

export const listField = (message: unknown, name: string): readonly unknown[] => {
  const value = field(message, name);
  return Array.isArray(value) ? value : [];
};

/** Entries of a `map<string, string>`. */
export const mapField = (message: unknown, name: string): ReadonlyMap<string, string> => {
  const value = field(message, name);
  if (typeof value !== "object" || value === null) return new Map();
  return new Map(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
};

/** google.protobuf.Timestamp in nanosecond resolution as text, only good for comparing; "" when unset. */
export const timestampField = (message: unknown, name: string): string => {
  const value = field(message, name);
  const seconds = field(value, "seconds");
  const nanos = field(value, "nanos");
  return typeof seconds === "number" && typeof nanos === "number" ? `${seconds}.${nanos}` : "";
};
