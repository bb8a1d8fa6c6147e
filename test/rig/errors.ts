import { CodedError } from "@p2p-mirror/shared";

/** This machine lacks something a test needs. `reason` says what, `remedy` what a person can do about it. */
export class MissingError extends CodedError {
  override readonly name = "MissingError";
  readonly code: "COMPONENT_MISSING" | "PRIVILEGE_MISSING";
  readonly what: string;
  readonly reason: string;
  readonly remedy: string;

  constructor(
    code: MissingError["code"],
    what: string,
    reason: string,
    remedy: string,
    options?: ErrorOptions,
  ) {
    super(`${what}: ${reason}. Remedy: ${remedy}`, options);
    this.code = code;
    this.what = what;
    this.reason = reason;
    this.remedy = remedy;
  }
}

/** A process of the rig, or a condition waited for, did not do what it should. The message holds the end of the log. */
export class RigError extends CodedError {
  override readonly name = "RigError";
  readonly code: "COMMAND_FAILED" | "NEVER_HAPPENED" | "PROCESS_ENDED" | "UNEXPECTED_ANSWER" | "PULL_FAILED";

  constructor(code: RigError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
