/** Logs in the main area, of a cluster or of a queue's task: one at a time, as it is written. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget } from '@jupyterlab/apputils';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import type { Api, ICluster, ITask } from './api';
import { Follower, PIECE } from './follower';
import { icon } from './icon';
import { printable } from './words';

const MOST = 1 << 20;
/** Characters that are kept on the page. */

type Tell = (text: string) => void;
interface ILog {
  start(): void;
  stop(): void;
}
/** Has one of several logs followed, by its name. */
type Follow = (name: string, show: Tell, say: Tell) => ILog;

export function showLogs(app: JupyterFrontEnd, api: Api, cluster: ICluster, names: string[]): void {
  const follow: Follow = (name, show, say) => new Follower(from => api.log(cluster.id, name, from, PIECE), -PIECE, show, say);
  add(app, `Logs of ${cluster.spec.name}`, new LogView(names, follow));
}

export function showTaskLog(app: JupyterFrontEnd, api: Api, site: string, queue: string, task: ITask): void {
  // The last one first; there may be more when it is looked at again.
  const attempts = Array.from({ length: task.attempts }, (_, before) => task.attempts - before);
  const follow: Follow = (name, show, say) => {
    const attempt = Number(name.split(' ')[1]);
    return new Follower<[number, number]>(from => api.taskLog(site, queue, task.id, attempt, from), [-1, -1], show, say);
  };
  add(app, `Log of ${queue} ${task.id}`, new LogView(attempts.map(number => `attempt ${number}`), follow));
}

function add(app: JupyterFrontEnd, title: string, content: LogView): void {
  const widget = new MainAreaWidget({ content });
  widget.title.label = title;
  widget.title.icon = icon;
  widget.title.closable = true;
  app.shell.add(widget, 'main');
}

class LogView extends Widget {
  constructor(
    names: string[],
    private _follow: Follow
  ) {
    super();
    this.addClass('hpcnb-logs');
    const bar = document.createElement('nav');
    this._names.className = 'jp-mod-styled';
    this._names.ariaLabel = 'Log';
    this._names.append(...names.map(name => new Option(name, name)));
    this._names.onchange = () => this._choose();
    this._again.className = 'jp-mod-styled';
    this._again.textContent = 'Try again';
    this._again.onclick = () => this._follower?.start();
    bar.append(this._names, this._again);
    this._trouble.className = 'hpcnb-trouble';
    this.node.append(bar, this._trouble, this._text);
    this._tell(names.length ? '' : 'There are no logs yet.');
    this._choose();
  }

  /** It follows only while it can be seen. */
  protected override onAfterShow(_message: Message): void {
    this._follower?.start();
  }

  protected override onBeforeHide(_message: Message): void {
    this._follower?.stop();
  }

  protected override onAfterAttach(_message: Message): void {
    if (this.isVisible) {
      this._follower?.start();
    }
  }

  protected override onBeforeDetach(_message: Message): void {
    this._follower?.stop();
  }

  private _choose(): void {
    this._follower?.stop();
    this._text.replaceChildren();
    const name = this._names.value;
    if (name) {
      this._follower = this._follow(name, text => this._append(text), trouble => this._tell(trouble));
      if (this.isVisible) {
        this._follower.start();
      }
    }
  }

  /** Show more, and stay at the end if that is where the user was. */
  private _append(text: string): void {
    const { scrollTop, scrollHeight, clientHeight } = this._text;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 4;
    this._text.append(printable(text));
    for (let all = this._text.textContent?.length ?? 0; all > MOST && this._text.childNodes.length > 1; ) {
      all -= this._text.firstChild?.textContent?.length ?? 0;
      this._text.firstChild?.remove();
    }
    if (atEnd) {
      this._text.scrollTop = this._text.scrollHeight;
    }
  }

  private _tell(trouble: string): void {
    this._trouble.textContent = trouble;
    this._again.hidden = !trouble;
  }

  private _names = document.createElement('select');
  private _again = document.createElement('button');
  private _trouble = document.createElement('p');
  private _text = document.createElement('pre');
  private _follower: ILog | undefined;
}
