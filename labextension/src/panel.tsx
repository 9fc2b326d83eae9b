/** The panel: every cluster of the user with what can be done to it, and a form for another one. */

import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import React, { useEffect, useState } from 'react';

import type { ISite } from './api';
import { Card, type IActions } from './card';
import { Form } from './form';
import { icon } from './icon';
import type { Model } from './model';
import { QueueSection, type IQueueActions } from './queuesection';
import type { Queues } from './queues';
import { lives, waits } from './words';

export class Panel extends ReactWidget {
  constructor(
    private _model: Model,
    private _queues: Queues,
    private _actions: IActions & { queues: IQueueActions }
  ) {
    super();
    document.addEventListener('visibilitychange', () => this._queues.look('page', !document.hidden));
    this.id = 'hpcnb-panel';
    this.title.icon = icon;
    this.title.caption = 'HPC clusters';
    this.addClass('hpcnb-panel');
  }

  protected override onAfterShow(): void {
    this._model.open();
    this._queues.look('panel', true);
  }

  protected override onAfterHide(): void {
    this._queues.look('panel', false);
  }

  protected override render(): JSX.Element {
    return (
      <UseSignal signal={this._model.changed}>
        {() => <Clusters model={this._model} queues={this._queues} actions={this._actions} />}
      </UseSignal>
    );
  }
}

interface IProps {
  model: Model;
  queues: Queues;
  actions: IActions & { queues: IQueueActions };
}

function Clusters({ model, queues, actions }: IProps): JSX.Element {
  const now = useNow();
  const { sites, wrong } = useSites(model, queues);
  const all = [...model.clusters.values()];
  const ended = all.filter(cluster => !lives(cluster)).reverse();
  return (
    <>
      {model.trouble && <p className="hpcnb-trouble">{model.trouble}</p>}
      <h2>Clusters</h2>
      {!model.trouble && !all.some(lives) && <p className="hpcnb-none">None is running.</p>}
      {all.filter(lives).map(cluster => (
        <Card key={cluster.id} cluster={cluster} now={waits(cluster) ? now : 0} actions={actions} />
      ))}
      <Form model={model} sites={sites} />
      {wrong && <pre className="hpcnb-trouble">{wrong}</pre>}
      <QueueSection queues={queues} sites={sites} actions={actions.queues} />
      {ended.length > 0 && (
        <details className="hpcnb-ended">
          <summary>Ended lately ({ended.length})</summary>
          {ended.map(cluster => (
            <Card key={cluster.id} cluster={cluster} now={0} actions={actions} />
          ))}
        </details>
      )}
    </>
  );
}

/** The configured sites, or what is wrong with the configuration; it may have been edited while the server was away. */
function useSites(model: Model, queues: Queues): { sites: ISite[]; wrong: string } {
  const [sites, setSites] = useState<ISite[]>([]);
  const [wrong, setWrong] = useState('');
  useEffect(() => {
    if (!model.trouble) {
      model.api.sites().then(
        found => (setSites(found), setWrong('')),
        error => setWrong(error.message)
      );
      void queues.ask();
    }
  }, [model.trouble]);
  return { sites, wrong };
}

/** The time in seconds, once a second: states are shown with how long they last. */
function useNow(): number {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => window.clearInterval(timer);
  }, []);
  return now;
}
