/** Follows a log: piece after piece from where the last one ended, so that nothing is missing or there twice. */

import { Refusal } from './refusal.js'; // with its ending, for Node

export const PIECE = 65536;
/** Bytes of one piece, and of what is shown of a log's past. */
const SOONEST = 1000;
const LATEST = 8000;

/** Reads from a place on; says where to go on, and whether nothing more will come. */
export type Read<Place> = (from: Place) => Promise<{ text: string; next: Place; over?: boolean }>;

export class Follower<Place> {
  constructor(
    private _read: Read<Place>,
    private _next: Place,
    private _show: (text: string) => void,
    /** Told why nothing more is read, and nothing when it goes on. */
    private _say: (trouble: string) => void
  ) {}

  /** Read on from now; harmless when it does already. */
  start(): void {
    if (!this._on) {
      this._on = true;
      void this._ask(++this._turn);
    }
  }

  stop(): void {
    this._on = false;
    this._turn++;
    window.clearTimeout(this._timer);
  }

  private async _ask(turn: number): Promise<void> {
    try {
      const { text, next, over } = await this._read(this._next);
      if (turn !== this._turn) {
        return;
      }
      this._next = next;
      this._pause = text ? SOONEST : Math.min(2 * this._pause, LATEST);
      this._say('');
      if (text) {
        this._show(text);
      } else if (over) {
        this.stop();
        return;
      }
    } catch (error) {
      if (turn !== this._turn) {
        return;
      }
      this._say((error as Error).message);
      if (error instanceof Refusal) {
        this.stop(); // until the user has seen to it
        return;
      }
    }
    this._timer = window.setTimeout(() => void this._ask(turn), this._pause);
  }

  private _on = false;
  private _turn = 0;
  private _pause = SOONEST;
  private _timer: number | undefined;
}
