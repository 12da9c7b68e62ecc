/* Tells the hub how much the terminal has really written, so that a flood stops at the node.
 *
 * The hub keeps at most 256 KiB unacknowledged. A message goes out every 64 KiB, and for the rest when
 * the terminal has nothing left to write: then `pending` is zero. */
const EVERY_BYTES = 64 * 1024

export class Acknowledger {
  private written = 0
  private sent = 0
  private pending = 0

  constructor(private readonly send: (total: number) => void) {}

  received(bytes: number): void {
    this.pending += bytes
  }

  wrote(bytes: number): void {
    this.pending -= bytes
    this.written += bytes
    if (this.written === this.sent) return
    if (this.pending === 0 || this.written - this.sent >= EVERY_BYTES) {
      this.sent = this.written
      this.send(this.written)
    }
  }
}
