/** The clusters as they are now: kept up to date by the websocket, which is opened again whenever it is lost. */

import { Signal, type ISignal } from '@lumino/signaling';

import type { Api, ICluster } from './api';

export interface IQuestion {
  number: number;
  kind: 'secret' | 'text' | 'confirm';
  title: string;
  text: string;
}

const SOONEST = 500;
const LATEST = 1000;
/** Milliseconds between two attempts: a server that is back is seen within seconds. */
const PAINT = 50;
/** Milliseconds in which all news are shown at once. */

export class Model {
  constructor(readonly api: Api) {}

  /** All that are known, by id, oldest first. */
  readonly clusters = new Map<string, ICluster>();

  /** Why nothing can be shown, if so. */
  trouble = 'connecting …';

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** A cluster's status, and the one before. */
  get moved(): ISignal<this, { now: ICluster; before: ICluster | undefined }> {
    return this._moved;
  }

  get asked(): ISignal<this, IQuestion> {
    return this._asked;
  }

  get answered(): ISignal<this, number> {
    return this._answered;
  }

  /** What somebody waits for, who can do nothing here. */
  get noticed(): ISignal<this, string> {
    return this._noticed;
  }

  /** Listen from now on; harmless when it does already. */
  open(): void {
    if (this._socket || this._timer !== undefined) {
      return;
    }
    const socket = (this._socket = new this.api.settings.WebSocket(this.api.news));
    socket.onmessage = event => this._hear(JSON.parse(event.data));
    socket.onclose = () => this._lost();
  }

  answer(number: number, text: string | null): void {
    this._socket?.send(JSON.stringify({ type: 'answer', number, text }));
  }

  private _lost(): void {
    this._socket = null;
    this.trouble = 'The Jupyter server does not answer; trying again …';
    this._timer = window.setTimeout(() => {
      this._timer = undefined;
      this.open();
    }, this._pause);
    this._pause = Math.min(2 * this._pause, LATEST);
    this._show();
  }

  private _hear(message: any): void {
    this._pause = SOONEST;
    switch (message.type) {
      case 'clusters':
        this.trouble = '';
        this.clusters.clear();
        for (const cluster of message.clusters as ICluster[]) {
          this.clusters.set(cluster.id, cluster);
        }
        break;
      case 'cluster': {
        const now: ICluster = message.cluster;
        const before = this.clusters.get(now.id);
        this.clusters.set(now.id, now);
        this._moved.emit({ now, before });
        break;
      }
      case 'question':
        this._asked.emit(message);
        return;
      case 'answered':
        this._answered.emit(message.number);
        return;
      case 'notice':
        this._noticed.emit(`${message.title}: ${message.text}`);
        return;
      case 'error':
        this.trouble = message.message;
        break;
    }
    this._show();
  }

  private _show(): void {
    this._painting ??= window.setTimeout(() => {
      this._painting = undefined;
      this._changed.emit();
    }, PAINT);
  }

  private _socket: WebSocket | null = null;
  private _timer: number | undefined;
  private _painting: number | undefined;
  private _pause = SOONEST;
  private _changed = new Signal<this, void>(this);
  private _moved = new Signal<this, { now: ICluster; before: ICluster | undefined }>(this);
  private _asked = new Signal<this, IQuestion>(this);
  private _answered = new Signal<this, number>(this);
  private _noticed = new Signal<this, string>(this);
}
