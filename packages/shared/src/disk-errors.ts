import { codeOf } from "./error-code.ts";

const hasCode = (error: unknown, ...codes: string[]): boolean => codes.includes(codeOf(error));

/** No room left, by the file system or by quota. */
export const isDiskFull = (error: unknown): boolean => hasCode(error, "ENOSPC", "EDQUOT");

export const isMissing = (error: unknown): boolean => hasCode(error, "ENOENT", "ENOTDIR");

/** The disk cannot read what it once wrote: as lost as a flipped bit. */
export const isUnreadable = (error: unknown): boolean => hasCode(error, "EIO", "EBADMSG", "EUCLEAN");
