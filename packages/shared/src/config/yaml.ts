/**
 * What is used of yaml, loaded when there is a file to read. yaml is CommonJS: a bundle knows its names only where they are
 * imported statically, as here.
 */
export { isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml";
