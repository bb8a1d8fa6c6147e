export * from "./config/decode.ts";
export * from "./config/file.ts";
export * from "./config/formats.ts";
export * from "./config/origin.ts";
export * from "./config/resolve.ts";
export * from "./config/schema.ts";
export * from "./config/suggest.ts";
export * from "./config/values.ts";
export { CodedError, ConfigError } from "./errors.ts";
