/**
 * A notebook that is opened in the middle of work: what its cells have shown since it was saved, and what they show from
 * now on. JupyterLab itself drops the output of what an earlier page has run.
 */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import { KernelMessage, type Kernel } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';

import { Shown, type IMessage, type IOutputs } from './shown';

const ASKED = 'kernel_info_request';
const TOLD = 'hpcnb_record';
const OURS = 'hpcnb';
/** As in hpcnb/notebook/record.py. */
const SOONEST = 1000;
const LATEST = 10000;
/** Milliseconds between two questions, while nothing comes back: the page may not be heard yet. */
const MENTIONS = /\bhpc(nb)?\b/;
const TOO_MUCH = '… what this cell has shown while no page was open is too much to be kept; it goes on here\n';

/** One execution of a cell, as `hpcnb.notebook.record.Shown` tells of it. */
interface ITold {
  request: string;
  cell: string;
  page: string;
  count: number | null;
  running: boolean;
  whole: boolean;
  clears: boolean;
  messages: IMessage[];
}

/** Of JupyterLab's `ICodeCellModel`, what is needed here. */
interface ICell {
  readonly id: string;
  readonly type: string;
  readonly outputs: IOutputs;
  executionCount: number | null;
  executionState: 'idle' | 'running';
  trusted: boolean;
}

interface INotebook {
  readonly collaborative?: boolean;
  readonly cells: Iterable<ICell>;
  readonly sharedModel: { readonly cells: { getSource(): string }[] };
}

type Context = DocumentRegistry.IContext<DocumentRegistry.IModel>;

/** Have each notebook that is opened go on where an earlier page was. */
export function reopen(app: JupyterFrontEnd): void {
  app.docRegistry.addWidgetExtension('Notebook', { createNew: (_, context) => new Reopened(context) });
}

class Reopened implements IDisposable {
  constructor(private _context: Context) {
    const session = _context.sessionContext;
    session.kernelChanged.connect(this._anew, this);
    session.connectionStatusChanged.connect(this._begin, this);
    session.statusChanged.connect(this._restarted, this);
    session.iopubMessage.connect(this._hear, this);
    _context.saveState.connect(this._saved, this);
    void _context.ready.then(() => this._begin());
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    const session = this._context.sessionContext;
    session.kernelChanged.disconnect(this._anew, this);
    session.connectionStatusChanged.disconnect(this._begin, this);
    session.statusChanged.disconnect(this._restarted, this);
    session.iopubMessage.disconnect(this._hear, this);
    this._context.saveState.disconnect(this._saved, this);
    this._disposed = true;
    this._anew();
  }

  private get _kernel(): Kernel.IKernelConnection | null {
    return this._context.sessionContext.session?.kernel ?? null;
  }

  private get _model(): INotebook {
    return this._context.model as unknown as INotebook;
  }

  // -- the kernel --------------------------------------------------------------------------------------------------------

  private _anew(): void {
    window.clearTimeout(this._timer);
    this._release.forEach(release => release());
    this._release = [];
    this._pages.clear();
    this._shown.clear();
    this._held = this._asked = this._loading = '';
    this._knows = false;
    this._heard = this._told = 0;
  }

  /** Ask a kernel that may know something, as soon as there is one. */
  private _begin(): void {
    const kernel = this._kernel;
    if (this._disposed || !this._context.isReady || kernel?.connectionStatus !== 'connected' || this._model.collaborative) {
      return;
    }
    if (this._held !== kernel.clientId) {
      this._held = kernel.clientId;
      kernel.anyMessage.connect(this._overhear, this);
      void this._hold(kernel.clientId).then(() => this._pages.add(kernel.clientId));
    }
    if (this._knows || this._model.sharedModel.cells.some(cell => MENTIONS.test(cell.getSource()))) {
      this._ask();
    }
  }

  private _restarted(): void {
    const status = this._kernel?.status;
    if (status === 'restarting' || status === 'autorestarting' || status === 'dead') {
      for (const { cell } of this._shown.values()) {
        if (cell.executionState === 'running') {
          cell.executionState = 'idle';
          cell.executionCount = null;
        }
      }
      this._shown.clear();
      this._knows = false;
      this._heard = this._told = 0;
    }
  }

  private _ask(pause = SOONEST): void {
    window.clearTimeout(this._timer);
    this._asked = this._send({ tell: true });
    this._timer = window.setTimeout(() => this._ask(Math.min(2 * pause, LATEST)), pause);
  }

  /** Send on the control channel, which is heard while a cell runs; returns the message's id. */
  private _send(content: object): string {
    const kernel = this._kernel;
    if (kernel?.connectionStatus !== 'connected') {
      return '';
    }
    const message = KernelMessage.createMessage<any>({
      msgType: ASKED,
      channel: 'control',
      session: kernel.clientId,
      username: kernel.username,
      content: { [OURS]: content }
    });
    kernel.sendControlMessage(message, false).dispose(); // what comes is among the cells' output
    return message.header.msg_id;
  }

  // -- what it says ------------------------------------------------------------------------------------------------------

  private _hear(_: unknown, message: KernelMessage.IMessage): void {
    const { msg_type: type } = message.header as { msg_type: string };
    const above = message.parent_header as KernelMessage.IHeader;
    const content = message.content as any;
    if (above.msg_id === this._asked) {
      window.clearTimeout(this._timer);
      if (type === TOLD) {
        this._knows = true;
        this._show(content.cells);
        this._heard = content.number;
      }
      return;
    }
    if (type === 'execute_input' && !this._knows && MENTIONS.test(content.code)) {
      this._loading = above.msg_id;
    } else if (above.msg_id === this._loading && content.execution_state === 'idle') {
      this._loading = '';
      this._begin();
    }
    const number = message.metadata[OURS] as number | undefined;
    if (number !== undefined && this._knows) {
      this._follow({ type, content }, above);
      this._heard = number;
    }
  }

  private _follow(message: IMessage, { msg_id: request, session: page }: KernelMessage.IHeader): void {
    const shown = this._shown.get(request);
    if (message.type === 'update_display_data') {
      this._shown.forEach(one => one.outputs.add(message));
    } else if (message.type !== 'status') {
      shown?.outputs.add(message);
    } else if (shown && message.content.execution_state === 'idle') {
      shown.cell.executionState = 'idle';
    }
    if (!shown && page !== this._kernel?.clientId && this._pages.has(page)) {
      this._ask(); // one that had to wait for others
    }
  }

  private _show(all: ITold[]): void {
    const cells = new Map([...this._model.cells].map(cell => [cell.id, cell]));
    const strange = new Set<string>();
    const shows: string[] = [];
    for (const told of all) {
      const cell = cells.get(told.cell);
      if (told.page === this._kernel?.clientId) {
        continue; // JupyterLab shows it
      }
      if (!this._pages.has(told.page)) {
        strange.add(told.page);
      } else if (cell?.type === 'code') {
        this._shown.set(told.request, { cell, outputs: shown(cell, told) });
        if (told.whole) {
          shows.push(told.request);
        }
      }
    }
    if (shows.length) {
      this._send({ shows });
    }
    for (const page of strange) {
      void this._hold(page).then(() => {
        if (!this._disposed && !this._pages.has(page)) {
          this._pages.add(page);
          this._ask();
        }
      });
    }
  }

  /** A cell that is run on this page is JupyterLab's again. */
  private _overhear(_: unknown, { msg, direction }: Kernel.IAnyMessageArgs): void {
    if (!this._disposed && direction === 'send' && msg.header.msg_type === 'execute_request') {
      const id = (msg.metadata as { cellId?: string }).cellId;
      this._shown.forEach(({ cell }, request) => cell.id === id && this._shown.delete(request));
    }
  }

  /** What is in the notebook's file need not be kept by the kernel. */
  private _saved(_: unknown, state: DocumentRegistry.SaveState): void {
    if (state === 'started') {
      this._saving = this._heard;
    } else if (state === 'completed' && this._knows && this._saving > this._told) {
      this._told = this._saving;
      this._send({ saved: this._saving, pages: [...this._pages] });
    }
  }

  // -- other pages -------------------------------------------------------------------------------------------------------

  /** Wait until no page of this browser stands for a connection to a kernel; from then on this one does. */
  private _hold(connection: string): Promise<void> {
    const released = new Promise<void>(release => this._release.push(release));
    if (!navigator.locks) {
      return Promise.resolve(); // over plain HTTP a browser does not say whether an earlier page is there
    }
    return new Promise(granted => {
      void navigator.locks.request(`hpcnb:${connection}`, () => {
        granted();
        return released;
      });
    });
  }

  private _shown = new Map<string, { cell: ICell; outputs: Shown }>();
  /** By the request of an earlier page. */
  private _pages = new Set<string>();
  /** The connections whose cells are shown here: this page's own, and those of pages that are gone. */
  private _release: (() => void)[] = [];
  private _held = '';
  private _asked = '';
  private _loading = '';
  private _knows = false;
  private _heard = 0;
  private _saving = 0;
  private _told = 0;
  /** The numbers of the last message that was heard, when saving began, and that the kernel knows to be saved. */
  private _timer: number | undefined;
  private _disposed = false;
}

/** Have a cell show what is told of it. */
function shown(cell: ICell, told: ITold): Shown {
  const outputs = new Shown(cell.outputs);
  if (told.whole) {
    cell.outputs.clear();
    cell.trusted = true; // as a cell that is run
    told.messages.forEach(message => outputs.add(message));
  } else {
    outputs.add({ type: 'stream', content: { name: 'stderr', text: TOO_MUCH } });
  }
  if (told.clears) {
    outputs.add({ type: 'clear_output', content: { wait: true } });
  }
  cell.executionCount = told.count;
  cell.executionState = told.running ? 'running' : 'idle';
  return outputs;
}
