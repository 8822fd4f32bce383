// What the page does when the user speaks while the agent does. Pure.
//
// The agent hears the user and stops by itself, some frames later. Until then the page holds its sound back: from the moment
// in which the user is heard, until the agent's turn ends. If the agent goes on speaking (the user only said "mm-hm", or
// there was a noise), its sound comes back when the user is quiet, after MOST_HELD frames at the latest.

export const MOST_HELD = 25; // frames of 80 ms
const TAIL = 2; // frames after the turn, in which its last sound fades

export class BargeIn {
  constructor() {
    this.held = 0; // frames since the user began; 0: nothing is held back
    this.tail = 0; // frames to hold after the turn
  }

  /** Takes a frame as the server describes it. Returns whether to flush what waits, and whether to hold this frame's sound. */
  frame({ speaking, turn_started, turn_ended, user_started, user_stopped }) {
    if (turn_started || user_stopped || this.held >= MOST_HELD) this.held = 0;
    if (turn_started) this.tail = 0;
    const flush = user_started;
    if (user_started && speaking && !turn_started) this.held = 1;
    else if (this.held) this.held++;
    const hold = this.held > 0 || this.tail > 0;
    if (this.tail) this.tail--;
    if (turn_ended) {
      this.tail = this.held ? TAIL : 0;
      this.held = 0;
    }
    return { flush, hold };
  }
}
