/** The panel: every cluster of the user with what can be done to it, and a form for another one. */

import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import React, { useEffect, useState } from 'react';

import { Card, type IActions } from './card';
import { Form } from './form';
import { icon } from './icon';
import type { Model } from './model';
import { lives } from './words';

export class Panel extends ReactWidget {
  constructor(
    private _model: Model,
    private _actions: IActions
  ) {
    super();
    this.id = 'hpcnb-panel';
    this.title.icon = icon;
    this.title.caption = 'HPC clusters';
    this.addClass('hpcnb-panel');
  }

  protected override onAfterShow(): void {
    this._model.open();
  }

  protected override render(): JSX.Element {
    return (
      <UseSignal signal={this._model.changed}>
        {() => <Clusters model={this._model} actions={this._actions} />}
      </UseSignal>
    );
  }
}

function Clusters({ model, actions }: { model: Model; actions: IActions }): JSX.Element {
  const now = useNow();
  const all = [...model.clusters.values()];
  const ended = all.filter(cluster => !lives(cluster)).reverse();
  return (
    <>
      {model.trouble && <p className="hpcnb-trouble">{model.trouble}</p>}
      <h2>Clusters</h2>
      {!model.trouble && !all.some(lives) && <p className="hpcnb-none">None is running.</p>}
      {all.filter(lives).map(cluster => (
        <Card key={cluster.id} cluster={cluster} now={now} actions={actions} />
      ))}
      <Form model={model} />
      {ended.length > 0 && (
        <details className="hpcnb-ended">
          <summary>Ended lately ({ended.length})</summary>
          {ended.map(cluster => (
            <Card key={cluster.id} cluster={cluster} now={now} actions={actions} />
          ))}
        </details>
      )}
    </>
  );
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
