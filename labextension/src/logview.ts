/** A cluster's logs in the main area: one at a time, as it is written. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget } from '@jupyterlab/apputils';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import type { Api, ICluster } from './api';
import { Follower } from './follower';
import { icon } from './icon';
import { printable } from './words';

const MOST = 1 << 20;
/** Characters that are kept on the page. */

export function showLogs(app: JupyterFrontEnd, api: Api, cluster: ICluster, names: string[]): void {
  const widget = new MainAreaWidget({ content: new LogView(api, cluster.id, names) });
  widget.title.label = `Logs of ${cluster.spec.name}`;
  widget.title.icon = icon;
  widget.title.closable = true;
  app.shell.add(widget, 'main');
}

class LogView extends Widget {
  constructor(
    private _api: Api,
    private _id: string,
    names: string[]
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
      const read = (offset: number, most: number) => this._api.log(this._id, name, offset, most);
      this._follower = new Follower(read, text => this._append(text), trouble => this._tell(trouble));
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
  private _follower: Follower | undefined;
}
