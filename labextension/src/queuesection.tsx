/** The part of the panel with a site's persistent queues. */

import { UseSignal } from '@jupyterlab/ui-components';
import React, { useEffect, useState } from 'react';

import { Action } from './action';
import type { IQueue, ISite } from './api';
import { Launch } from './launch';
import type { Queues } from './queues';
import { plural, tally } from './words';

/** What can be done to a queue of a site; each resolves when it is done, and has told the user if it was refused. */
export interface IQueueActions {
  tasks: (site: string, queue: IQueue) => Promise<void>;
  pause: (site: string, queue: IQueue) => Promise<void>;
  resume: (site: string, queue: IQueue) => Promise<void>;
  retry: (site: string, queue: IQueue) => Promise<void>;
  login: (site: string) => Promise<void>;
}

interface IProps {
  queues: Queues;
  sites: ISite[];
  actions: IQueueActions;
}

export function QueueSection({ queues, sites, actions }: IProps): JSX.Element {
  const [site, setSite] = useState('');
  const [open, setOpen] = useState<boolean | null>(null);
  const chosen = sites.find(one => one.name === site) ?? sites.find(one => one.default);
  // To look elsewhere means a connection there, which nobody has asked for yet.
  const shown = open ?? (chosen !== undefined && !chosen.host);

  useEffect(() => {
    if (chosen) {
      queues.choose(chosen.name);
      queues.look('section', shown);
    }
  }, [chosen?.name, shown]);

  return (
    <details className="hpcnb-queues" open={shown} onToggle={event => setOpen(event.currentTarget.open)}>
      <summary>Queues</summary>
      {sites.length > 1 && (
        <select className="jp-mod-styled" aria-label="Site of the queues" value={chosen?.name ?? ''} onChange={event => setSite(event.target.value)}>
          {sites.map(one => (
            <option key={one.name}>{one.name}</option>
          ))}
        </select>
      )}
      <UseSignal signal={queues.changed}>{() => <List queues={queues} at={chosen} actions={actions} />}</UseSignal>
    </details>
  );
}

function List({ queues, at, actions }: { queues: Queues; at: ISite | undefined; actions: IQueueActions }): JSX.Element {
  const [launching, setLaunching] = useState('');
  const [submitted, setSubmitted] = useState<{ [queue: string]: string[] }>({});
  const { site, list, trouble } = queues;
  const told =
    (work: (site: string, queue: IQueue) => Promise<void>, queue: IQueue) => async (): Promise<void> => {
      await work(site, queue);
      await queues.ask();
    };
  const launched = (name: string, ids: string[]) => {
    setLaunching('');
    setSubmitted({ [name]: ids });
    void queues.ask();
  };
  return (
    <>
      {trouble && <pre className="hpcnb-trouble">{trouble}</pre>}
      {trouble && at?.host && <Action label="Log in" run={() => actions.login(site).then(() => queues.ask())} />}
      {trouble && <Action label="Try again" run={() => queues.ask()} />}
      {!trouble && list === null && <p className="hpcnb-none">looking …</p>}
      {!trouble && list?.length === 0 && <p className="hpcnb-none">There is none. `hpcnb queue create` makes one.</p>}
      {list?.map(queue => (
        <section className="hpcnb-queue" key={queue.name} data-name={queue.name} data-state={queue.state}>
          <header>
            <a title="Its tasks" onClick={() => void actions.tasks(site, queue)}>
              {queue.name}
            </a>
            <span className="hpcnb-state">{queue.state.toLowerCase()}</span>
          </header>
          <Bar queue={queue} />
          <footer>
            {queue.state === 'Active' && <Action label="Pause" title="Give out no further tasks; those that run go on" run={told(actions.pause, queue)} />}
            {queue.state === 'Paused' && <Action label="Resume" title="Give out tasks again" run={told(actions.resume, queue)} />}
            {queue.ntasks.Failed > 0 && <Action label="Retry failed" title="Have them carried out again" run={told(actions.retry, queue)} />}
            {at && (
              <Action label="Launch …" title="Submit jobs that drain it" off={launching === queue.name} run={async () => setLaunching(queue.name)} />
            )}
          </footer>
          {at && launching === queue.name && (
            <Launch key={`${site} ${queue.name}`} api={queues.api} site={at} queue={queue.name} done={ids => launched(queue.name, ids)} />
          )}
          {submitted[queue.name]?.length ? <p>Submitted: {submitted[queue.name]?.join(', ')}</p> : null}
        </section>
      ))}
    </>
  );
}

function Bar({ queue }: { queue: IQueue }): JSX.Element {
  const parts = tally(queue);
  const said = parts.map(([state, n]) => `${n.toLocaleString('en')} ${state.toLowerCase()}`).join(', ');
  return (
    <>
      <div className="hpcnb-bar" role="img" aria-label={said}>
        {parts.map(([state, n]) => (
          <span key={state} data-state={state} style={{ flexGrow: n }} />
        ))}
      </div>
      <p>{said || plural(0, 'task')}</p>
    </>
  );
}
