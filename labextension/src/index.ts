/** The extension: what of hpcnb is where in JupyterLab. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, showDialog, Dialog, showErrorMessage } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { IStatusBar } from '@jupyterlab/statusbar';

import { announce } from './announce';
import { Api, type ICluster } from './api';
import type { IActions } from './card';
import { icon } from './icon';
import { showLogs } from './logview';
import { Model } from './model';
import { Panel } from './panel';
import { queueActions } from './queueactions';
import { Queues } from './queues';
import { answerQuestions } from './questions';
import { reopen } from './reopened';
import { StatusItem } from './status';
import { code } from './words';

const SHOW = 'hpcnb:show';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'hpcnb:plugin',
  description: 'HPC clusters: start, watch, use and end them.',
  autoStart: true,
  optional: [ICommandPalette, ILauncher, ILayoutRestorer, IStatusBar],
  activate
};

function activate(
  app: JupyterFrontEnd,
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  restorer: ILayoutRestorer | null,
  bar: IStatusBar | null
): void {
  const model = new Model(new Api(app.serviceManager.serverSettings));
  const panel = new Panel(model, new Queues(model.api), { ...actions(app, model), queues: queueActions(app, model.api) });
  app.shell.add(panel, 'left', { rank: 550 });
  restorer?.add(panel, panel.id);
  app.commands.addCommand(SHOW, {
    label: 'HPC clusters',
    caption: 'Start, watch, use and end clusters inside Slurm allocations',
    icon,
    execute: () => app.shell.activateById(panel.id)
  });
  palette?.addItem({ command: SHOW, category: 'HPC' });
  launcher?.add({ command: SHOW, category: 'Other', rank: 1 });
  bar?.registerStatusItem('hpcnb:status', {
    item: new StatusItem(model, () => app.shell.activateById(panel.id)),
    align: 'left',
    rank: 50
  });
  answerQuestions(model);
  announce(model);
  reopen(app);
}

function actions(app: JupyterFrontEnd, model: Model): IActions {
  const { api } = model;
  const told =
    <A extends unknown[]>(work: (cluster: ICluster, ...more: A) => Promise<unknown>) =>
    async (cluster: ICluster, ...more: A): Promise<void> => {
      try {
        await work(cluster, ...more);
      } catch (error) {
        await showErrorMessage(cluster.spec.name, error as Error);
      }
    };
  return {
    insert: told(cluster => insert(app, code(cluster))),
    scale: told((cluster, nodes: number) => api.scale(cluster.id, nodes)),
    keep: told(cluster => api.keep(cluster.id)),
    login: told(cluster => api.login(cluster.spec.site)),
    dashboard: told(async cluster => void window.open(api.dashboard(cluster.id), '_blank', 'noopener')),
    logs: told(async cluster => showLogs(app, api, cluster, await api.logs(cluster.id))),
    end: told(async cluster => {
      if (await sure(cluster)) {
        await api.end(cluster.id);
      }
    })
  };
}

async function insert(app: JupyterFrontEnd, text: string): Promise<void> {
  await app.commands.execute('notebook:insert-cell-below');
  await app.commands.execute('notebook:replace-selection', { text });
}

async function sure(cluster: ICluster): Promise<boolean> {
  const busy = Object.values(cluster.counts.tasks).some(n => n > 0);
  const answer = await showDialog({
    title: `End ${cluster.spec.name}?`,
    body: busy ? 'It has tasks; what they have not stored is lost.' : 'Its batch jobs are cancelled.',
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'End' })]
  });
  return answer.button.accept;
}

export default plugin;
