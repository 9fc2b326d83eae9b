/** The tasks of a queue, a page at a time. */

import { ReactWidget } from '@jupyterlab/ui-components';
import React, { useEffect, useState } from 'react';

import type { Api, ITask } from './api';
import { visible } from './words';

const PAGE = 50;
const STATES = ['', 'Waiting', 'Pending', 'Running', 'Succeeded', 'Failed', 'Killed'];

export class TasksView extends ReactWidget {
  constructor(
    private _api: Api,
    private _site: string,
    private _queue: string,
    private _log: (task: ITask) => void
  ) {
    super();
    this.addClass('hpcnb-tasks');
  }

  protected override render(): JSX.Element {
    return <Tasks ask={(state, after) => this._api.tasks(this._site, this._queue, state, after, PAGE)} log={this._log} />;
  }
}

type Ask = (state: string, after: number) => Promise<{ tasks: ITask[]; next: number | null }>;

function Tasks({ ask, log }: { ask: Ask; log: (task: ITask) => void }): JSX.Element {
  const [state, setState] = useState('');
  const [after, setAfter] = useState(0);
  const [asked, setAsked] = useState(0);
  const [page, setPage] = useState<{ tasks: ITask[]; next: number | null }>({ tasks: [], next: null });
  const [said, setSaid] = useState('');

  useEffect(() => {
    let current = true;
    ask(state, after).then(
      found => current && (setPage(found), setSaid(found.tasks.length ? '' : 'There is none.')),
      error => current && setSaid(error.message)
    );
    return () => {
      current = false;
    };
  }, [state, after, asked]);

  const from = (id: number) => {
    setAfter(id);
    setAsked(asked + 1);
  };
  return (
    <>
      <nav>
        <select className="jp-mod-styled" aria-label="State" value={state} onChange={event => (setState(event.target.value), from(0))}>
          {STATES.map(name => (
            <option key={name} value={name}>
              {name || 'All'}
            </option>
          ))}
        </select>
        <button className="jp-mod-styled" onClick={() => from(0)}>
          First
        </button>
        <button className="jp-mod-styled" disabled={page.next === null} onClick={() => from(page.next ?? 0)}>
          Next
        </button>
      </nav>
      {said && <pre>{said}</pre>}
      <table>
        <tbody>
          {page.tasks.map(one => (
            <tr key={one.id} data-state={one.state}>
              <td>
                {one.attempts ? (
                  <a title="What it has printed" onClick={() => log(one)}>
                    {one.id}
                  </a>
                ) : (
                  one.id
                )}
              </td>
              <td>{one.state}</td>
              <td>{one.attempts > 1 ? `attempt ${one.attempts}` : ''}</td>
              <td>
                <code>{visible(typeof one.task === 'string' ? one.task : JSON.stringify(one.task))}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
