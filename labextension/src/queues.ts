/** The queues of one site as they are now: asked for every few seconds, while somebody looks. */

import { Signal, type ISignal } from '@lumino/signaling';

import type { Api, IQueue } from './api';
import { Refusal } from './refusal.js'; // with its ending, for Node

const SOONEST = 3000;
const LATEST = 60000;
const SHARE = 10;
/** Of the time, a tenth at most is spent with a question: elsewhere each is a command on a login node. */

export class Queues {
  constructor(readonly api: Pick<Api, 'queues' | 'limits' | 'launch'>) {}

  /** Empty: the default site. */
  site = '';

  /** Null: not known yet. */
  list: IQueue[] | null = null;

  /** Why they are not known, or no longer. */
  trouble = '';

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Whether they can be seen: the page, the panel on it, and the section in that. */
  look(where: 'page' | 'panel' | 'section', on: boolean): void {
    if (this._seen[where] !== on) {
      this._seen[where] = on;
      void this.ask();
    }
  }

  choose(site: string): void {
    if (site !== this.site) {
      this.site = site;
      this.list = null;
      this.trouble = '';
      this._changed.emit();
      void this.ask();
    }
  }

  /** Ask now, and go on asking; what was asked before counts no more. */
  async ask(): Promise<void> {
    const number = ++this._number;
    window.clearTimeout(this._timer);
    if (!Object.values(this._seen).every(Boolean)) {
      return;
    }
    const began = Date.now();
    let pause = LATEST;
    try {
      const list = await this.api.queues(this.site);
      if (number !== this._number) {
        return;
      }
      this.list = list;
      this.trouble = '';
      pause = Math.min(LATEST, Math.max(SOONEST, SHARE * (Date.now() - began)));
    } catch (error) {
      if (number !== this._number) {
        return;
      }
      this.trouble = (error as Error).message;
      // A site that refuses is left alone until the user has seen to it: login nodes ban who tries too often.
      pause = error instanceof Refusal ? Infinity : SOONEST;
    }
    if (pause < Infinity) {
      this._timer = window.setTimeout(() => void this.ask(), pause);
    }
    this._changed.emit();
  }

  private _seen = { page: true, panel: false, section: false };
  private _number = 0;
  private _timer: number | undefined;
  private _changed = new Signal<this, void>(this);
}
